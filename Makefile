# The two commands a newcomer needs are `make report` and `make test`; each does the set-up it needs.
PYTHON ?= python3
PROFILE ?= quick
# Of `make report`: reference, smollm2, a folder of weights or a .gguf file.
MODEL ?= reference
# Where it computes (auto takes a GPU where there is one), and the dtype of its weights.
DEVICE ?= auto
DTYPE ?= float32
# Of `make history`: how many commits, and the machine that results are stored under, which asv would
# call by its host's name. Profiles are stored apart: what one has measured the other has not.
COMMITS ?= 5
MACHINE ?= local
# Of `make gate`: what is compared with what.
BASE ?= HEAD~1
HEAD ?= HEAD

VENV := .venv
PEERS := .venv-peers
RAY := .venv-ray
TRITON := .venv-triton
PAGE := reports/site

# Whoever gives one of these gives a word: make expands nothing in it, and recipes have it from their
# environment, as "$$BASE", where no shell takes it for text of its own.
WORDS := PYTHON PROFILE MODEL DEVICE DTYPE COMMITS MACHINE BASE HEAD VENV PEERS RAY TRITON PAGE
$(foreach word,$(WORDS),$(eval override $(word) := $$(value $(word))))
export $(WORDS)

# Same input, same output: string hashing and the GPU's matrix products are made repeatable. The
# number of threads is left alone on purpose: it is part of what is measured, and is recorded.
export PYTHONHASHSEED := 0
export CUBLAS_WORKSPACE_CONFIG := :4096:8
# Whatever a test loads lies on this disk already, so no library should ask the network for it.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

RUN := "$$VENV/bin/python"
# An environment says itself whether it is complete; if not, PYTHON makes it. In $(1) its folder, and
# what else is wanted.
set_up = @$(RUN) -m benchmarks.set_up $(1) --check 2>/dev/null || { \
	"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	printf 'error: %s is missing or older than Python 3.11; name another: make PYTHON=python3.12\n' \
	"$$PYTHON" >&2; exit 2; }; \
	"$$PYTHON" -m benchmarks.set_up $(1); }

# Where the system ended what ran, only this line can say why it may have.
told = || { status=$$?; [ $$status != 137 ] || printf 'error: the system ended it with signal 9, as it \
	does when memory runs out; close other programs and run the same command again\n' >&2; exit $$status; }

.DEFAULT_GOAL := help
.PHONY: help environment setup report readme test test-ray test-triton fuzz lint lock train history gate \
	gate-proof peers

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

environment:
	$(call set_up,"$$VENV")

setup: ## create .venv and fetch the texts (done once, and by every other target)
	$(call set_up,"$$VENV" --texts)

report: setup ## measure and write the page; PROFILE=smoke|quick|full MODEL=smollm2|FOLDER|FILE.gguf DEVICE=cpu|cuda DTYPE=bfloat16
	@$(RUN) -m benchmarks run --profile="$$PROFILE" --model="$$MODEL" --device="$$DEVICE" \
		--dtype="$$DTYPE" --out="$$PAGE/results.json" $(told)
	@$(RUN) -m reports build "$$PAGE/results.json" --out="$$PAGE" $(told)
	@printf 'The page: file://%s/%s/index.html\n' "$$(pwd)" "$$PAGE"

readme: environment ## write tables and marked figures of the pages anew from reports/published
	$(RUN) -m reports table reports/published/quick.json reports/published \
		--into benchmarks/experiments/README.md
	$(RUN) -m reports measurements reports/published/turboquant.json turboquant.zero-loss \
		format_loss_increase format_prediction_kl format_top1_agreement --into reports/published/kv_codecs.md
	$(RUN) -m reports measurements reports/published/turboquant_formats.json turboquant.best-at-three \
		prediction_kl loss_increase kl_p99 top1_agreement --into reports/published/kv_formats.md
	$(RUN) -m benchmarks.exact_cases benchmarks/exact_cases/README.md
	$(RUN) -m reports figures $$(git ls-files --cached --others --exclude-standard '*.md')

test: setup ## run all tests
	@$(RUN) -m pytest --numprocesses=auto --dist=loadfile --durations=10 $(told)

# An environment of its own, as for the peers.
test-ray: environment ## measure on a real Ray cluster of this machine, and lose a worker
	$(call set_up,"$$RAY" --ray)
	"$$RAY/bin/python" -m pytest tests/on_ray

# Twice: Triton is an interpreter or a compiler, as it was when it was imported.
test-triton: environment ## run the GPU's kernels in an interpreter, and compile them: no GPU is needed
	$(call set_up,"$$TRITON" --triton)
	TRITON_INTERPRET=1 "$$TRITON/bin/python" -m pytest --numprocesses=auto tests/on_triton/test_attention.py tests/on_triton/test_cache.py
	"$$TRITON/bin/python" -m pytest --numprocesses=auto tests/on_triton/test_compiled.py

fuzz: setup ## throw thousands of damaged and hostile inputs at it (seeded, 10 minutes)
	$(RUN) -m tests.fuzz

lint: environment ## check style, types and workflows
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	"$$VENV/bin/zizmor" --offline --quiet .github/workflows

lock: ## make the locks anew from requirements.in, with uv and a network
	.ci/lock

train: setup ## train the reference checkpoint again (up to two hours on two cores)
	@$(RUN) -m benchmarks.training.train_reference $(told)

history: environment ## follow speed and size over the last COMMITS=5 commits with asv
	@$(RUN) -m reports.history.measure --commits="$$COMMITS" --machine="$$MACHINE" \
		--profile="$$PROFILE" --out="$$PAGE/history.html" $(told)
	@printf 'The pages: %s/bin/python -m asv preview, then open the address that it names\n' "$$VENV"

# The options of a gate whose commits need different packages, a word a line.
gate: setup ## did a commit make it worse? BASE=HEAD~1 HEAD=HEAD (CI calls the module: its exit status tells)
	@environments=$$($(RUN) -m reports.gate.environments --base="$$BASE" --head="$$HEAD") && \
		IFS=$$(printf '\nx') && IFS=$${IFS%x} && set -f && \
		exec $(RUN) -m reports.gate --base="$$BASE" --head="$$HEAD" $$environments \
		--html="$$PAGE/gate.html" --json="$$PAGE/gate.json"

gate-proof: setup ## measure the gate's own error rates (hours of an idle machine; resumed where it stopped)
	$(RUN) -m reports.gate.validation all --out reports/published/gate_toy.json --html reports/published/gate_toy.html

# An environment of its own: these bring runtimes of their own, which nothing else needs.
peers: setup ## decode beside Hugging Face, CTranslate2 and llama.cpp
	$(call set_up,"$$PEERS" --peers)
	"$$PEERS/bin/python" -m benchmarks.peers.decoding
