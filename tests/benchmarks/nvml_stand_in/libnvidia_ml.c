/* A stand-in for the driver's libnvidia-ml.so.1: answers from a scenario file, in NVML's own ABI.
 *
 * The file, named by NVML_SCENARIO and read when NVML is opened, has one "key = value" a line; the
 * last line of a key holds. Keys: "driver", "count", and per device "0.uuid", "0.memory.total" and
 * so on, where MIG instances are "0.mig0", "0.mig1". "0.NAME = 15" lets the function NAME return
 * error 15 for device 0, "NAME = 9" for all; "self" is this process. A figure that the file lacks
 * is NVML_ERROR_UNKNOWN: a test says what it needs.
 *
 * Structs and codes are those of https://docs.nvidia.com/deploy/nvml-api, declared here anew, so
 * that a wrong layout or version in what calls this library shows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999
};
enum { LINES = 200, WIDTH = 160, DEVICES = 32 };

typedef struct { char name[24]; } Device; /* what a handle points to: "0", "1", "0.mig1" */
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu, compute; } Process;
typedef struct { unsigned gpu, memory; } Utilization;

static char lines[LINES][WIDTH];
static int line_count, open_sessions;
static Device devices[DEVICES];

static const char *look_up(const char *key) {
    for (int i = line_count - 1; i >= 0; i--) {
        char *equals = strstr(lines[i], " = ");
        if (equals && strlen(key) == (size_t)(equals - lines[i]) &&
            strncmp(lines[i], key, strlen(key)) == 0)
            return equals + 3;
    }
    return NULL;
}

static const char *of_device(const Device *device, const char *field) {
    char key[WIDTH];
    snprintf(key, sizeof key, "%s.%s", device->name, field);
    return look_up(key);
}

/* The error that the scenario wants from a function, or none. */
static int error_of(const char *function, const Device *device) {
    const char *wanted = look_up(function);
    if (!wanted && device) wanted = of_device(device, function);
    if (wanted) return atoi(wanted);
    return open_sessions > 0 ? SUCCESS : UNINITIALIZED;
}

static int number(const Device *device, const char *field, unsigned long long *value) {
    const char *text = of_device(device, field);
    if (!text) return UNKNOWN;
    *value = strtoull(text, NULL, 0); /* "-1" is NVML's "not available", in any width */
    return SUCCESS;
}

static int text(const char *found, char *buffer, unsigned length) {
    if (!found) return UNKNOWN;
    if (strlen(found) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(buffer, found);
    return SUCCESS;
}

static int device_named(const char *name, Device **device) {
    for (int i = 0; i < DEVICES; i++) {
        if (devices[i].name[0] == '\0') strcpy(devices[i].name, name);
        if (strcmp(devices[i].name, name) == 0) {
            *device = &devices[i];
            return SUCCESS;
        }
    }
    return UNKNOWN;
}

#define FAIL_IF_WANTED(device)                          \
    do {                                                \
        int error = error_of(__func__, device);         \
        if (error != SUCCESS) return error;             \
    } while (0)

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    line_count = 0;
    FILE *file = fopen(getenv("NVML_SCENARIO"), "r");
    if (!file) return UNKNOWN;
    while (line_count < LINES && fgets(lines[line_count], WIDTH, file)) {
        lines[line_count][strcspn(lines[line_count], "\n")] = '\0';
        line_count++;
    }
    fclose(file);
    const char *error = look_up(__func__);
    if (error) return atoi(error);
    open_sessions++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (open_sessions == 0) return UNINITIALIZED;
    open_sessions--;
    FAIL_IF_WANTED(NULL);
    return SUCCESS;
}

/* Not NVML's: how many sessions were opened and not closed. */
int stand_in_open_sessions(void) { return open_sessions; }

const char *nvmlErrorString(int code) {
    static char words[WIDTH];
    snprintf(words, sizeof words, "the stand-in's words for error %d", code);
    return words;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    FAIL_IF_WANTED(NULL);
    return text(look_up("driver"), version, length);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    FAIL_IF_WANTED(NULL);
    const char *found = look_up("count");
    *count = found ? (unsigned)atoi(found) : 0;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    char name[16];
    unsigned count;
    int error = nvmlDeviceGetCount_v2(&count);
    if (error != SUCCESS) return error;
    if (index >= count) return INVALID_ARGUMENT;
    snprintf(name, sizeof name, "%u", index);
    error = device_named(name, device);
    if (error != SUCCESS) return error;
    FAIL_IF_WANTED(*device);
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, Device **device) {
    unsigned count;
    FAIL_IF_WANTED(NULL);
    nvmlDeviceGetCount_v2(&count);
    for (unsigned i = 0; i < count; i++) {
        const char *found;
        if (nvmlDeviceGetHandleByIndex_v2(i, device) != SUCCESS) continue;
        found = of_device(*device, "bus");
        if (found && strcmp(found, bus) == 0) return SUCCESS;
    }
    return NOT_FOUND;
}

/* Only the older form "MIG-GPU-UUID/instance/instance", of which a device may have one. */
int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    FAIL_IF_WANTED(NULL);
    for (int i = 0; i < line_count; i++) {
        char *field = strstr(lines[i], ".older_uuid = ");
        if (field && strcmp(strchr(field, '=') + 2, uuid) == 0) {
            char name[sizeof(*device)->name];
            snprintf(name, sizeof name, "%.*s", (int)(field - lines[i]), lines[i]);
            return device_named(name, device);
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned length) {
    FAIL_IF_WANTED(device);
    return text(of_device(device, "uuid"), uuid, length);
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) {
    unsigned long long places;
    FAIL_IF_WANTED(device);
    int error = number(device, "mig", &places);
    *count = (unsigned)places;
    return error;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **instance) {
    char name[sizeof device->name + 16], key[sizeof name + 8];
    FAIL_IF_WANTED(device);
    snprintf(name, sizeof name, "%s.mig%u", device->name, index);
    snprintf(key, sizeof key, "%s.uuid", name);
    if (!look_up(key)) return NOT_FOUND;
    return device_named(name, instance);
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    unsigned long long reserved;
    FAIL_IF_WANTED(device);
    if (number(device, "memory.total", &memory->total) ||
        number(device, "memory.reserved", &reserved) || number(device, "memory.used", &memory->used))
        return UNKNOWN;
    memory->used += reserved; /* the first version does not tell them apart */
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    FAIL_IF_WANTED(device);
    if (memory->version != (sizeof(MemoryV2) | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    if (number(device, "memory.total", &memory->total) ||
        number(device, "memory.reserved", &memory->reserved) ||
        number(device, "memory.used", &memory->used))
        return UNKNOWN;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

/* "0.processes = self:1000 77:2000", number and bytes of each, or "none". */
int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes) {
    char list[WIDTH];
    unsigned room = *count;
    FAIL_IF_WANTED(device);
    const char *found = of_device(device, "processes");
    if (!found) return UNKNOWN;
    *count = 0;
    strcpy(list, found);
    for (char *each = strtok(list, " "); each; each = strtok(NULL, " ")) {
        const char *bytes = strchr(each, ':');
        if (!bytes) continue; /* "none" */
        if (++*count > room) continue; /* counted all the same: the caller learns the size */
        Process *process = &processes[*count - 1];
        process->pid = strncmp(each, "self:", 5) == 0 ? (unsigned)getpid() : (unsigned)atoi(each);
        process->bytes = strtoull(bytes + 1, NULL, 0);
        process->gpu = process->compute = (unsigned)-1; /* not a MIG instance */
    }
    return *count > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    FAIL_IF_WANTED(device);
    return number(device, "throttle", reasons);
}
#endif

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    unsigned long long gpu, memory;
    FAIL_IF_WANTED(device);
    if (number(device, "utilisation.gpu", &gpu) || number(device, "utilisation.memory", &memory))
        return UNKNOWN;
    *rates = (Utilization){(unsigned)gpu, (unsigned)memory};
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    FAIL_IF_WANTED(device);
    return number(device, "energy", millijoules);
}

int nvmlDeviceGetClockInfo(Device *device, unsigned kind, unsigned *megahertz) {
    static const char *const fields[] = {"clock.graphics", "clock.sm", "clock.memory"};
    unsigned long long clock;
    FAIL_IF_WANTED(device);
    if (kind > 2) return INVALID_ARGUMENT;
    int error = number(device, fields[kind], &clock);
    *megahertz = (unsigned)clock;
    return error;
}
