# The two commands a newcomer needs are `make report` and `make test`; each does the set-up it needs.
PYTHON ?= python3
PROFILE ?= quick
# Of `make history`: how many commits, and the machine that results are stored under, which asv would
# call by its host's name. Profiles are stored apart: what one has measured the other has not.
COMMITS ?= 5
MACHINE ?= local
# Of `make gate`: what is compared with what.
BASE ?= HEAD~1
HEAD ?= HEAD
STORED := $(MACHINE)-$(PROFILE)

VENV := .venv
RUN := $(VENV)/bin/python
PAGE := reports/site
PEERS := .venv-peers

# Same input, same output: string hashing and the GPU's matrix products are made repeatable. The
# number of threads is left alone on purpose: it is part of what is measured, and is recorded.
export PYTHONHASHSEED := 0
export CUBLAS_WORKSPACE_CONFIG := :4096:8
# Whatever a test loads lies on this disk already, so no library should ask the network for it.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup report readme test fuzz lint train history gate gate-proof peers

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.assets ## create .venv and fetch the texts (done once, and by every other target)

report: $(VENV)/.assets ## measure and write the page; PROFILE=smoke|quick|full
	@mkdir -p $(PAGE)
	$(RUN) -m benchmarks run --profile $(PROFILE) --out $(PAGE)/results.json
	$(RUN) -m reports build $(PAGE)/results.json --out $(PAGE)
	@echo "The page: file://$(CURDIR)/$(PAGE)/index.html"

readme: $(VENV)/.installed ## write the README's table of verdicts anew from the published results
	$(RUN) -m reports table reports/published/quick.json --into README.md

test: $(VENV)/.assets ## run all tests
	$(RUN) -m pytest --durations=10

fuzz: $(VENV)/.assets ## throw thousands of damaged and hostile inputs at it (seeded, 10 minutes)
	$(RUN) -m tests.fuzz

lint: $(VENV)/.installed ## check style, types and workflows
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/zizmor --offline --quiet .github/workflows

train: $(VENV)/.assets ## train the reference checkpoint again (up to two hours on two cores)
	$(RUN) -m benchmarks.train_reference

history: $(VENV)/.installed ## follow speed and size over the last COMMITS=5 commits with asv
	@$(RUN) -c "from asv.machine import Machine, MachineCollection as known; \
		known.save('$(STORED)', {**Machine.get_defaults(), 'machine': '$(STORED)'})"
	@# Results of a run in which something failed are shown, too.
	git rev-list --first-parent --max-count=$(COMMITS) HEAD | \
		PIP_CONSTRAINT=$(CURDIR)/requirements.txt LLM_DESIGN_BENCH_PROFILE=$(PROFILE) $(RUN) -m asv \
		run --machine $(STORED) --skip-existing-successful --show-stderr HASHFILE:- ; \
		status=$$?; $(RUN) -m asv publish && \
		$(RUN) -m reports history .asv/results --out $(PAGE)/history.html && exit $$status
	@echo "The pages: $(RUN) -m asv preview, then open the address that it names"

gate: $(VENV)/.assets ## did a commit make it worse? BASE=HEAD~1 HEAD=HEAD (CI calls the module: its exit status tells)
	environments=$$($(RUN) -m reports.gate.environments --base '$(BASE)' --head '$(HEAD)') && \
		exec $(RUN) -m reports.gate --base '$(BASE)' --head '$(HEAD)' $$environments \
		--html $(PAGE)/gate.html --json $(PAGE)/gate.json

gate-proof: $(VENV)/.assets ## measure the gate's own error rates (hours of an idle machine; resumed where it stopped)
	$(RUN) -m reports.gate.campaign all --out reports/published/gate.json --html reports/published/gate.html

peers: $(PEERS)/.installed $(VENV)/.assets ## decode beside Hugging Face, CTranslate2 and llama.cpp
	$(PEERS)/bin/python -m benchmarks.peers.decoding

# The stamps are written last, so that an interrupted installation is taken up again.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: $(PYTHON) is missing or older than Python 3.11; name another: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) cannot create environments; install its venv module (Debian: apt install python3-venv)" >&2; exit 2; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

$(VENV)/.assets: $(VENV)/.installed benchmarks/assets.py
	$(RUN) -m benchmarks.assets
	@touch $@

# An environment of its own: these bring runtimes of their own, which nothing else needs.
$(PEERS)/.installed: requirements.txt benchmarks/peers/requirements.txt $(VENV)/.installed
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement requirements.txt --requirement benchmarks/peers/requirements.txt
	@touch $@
