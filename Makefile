# IMAGES ──make shards──▶ DATASET ──make train──▶ MODEL ──make predict──▶ PREDICTIONS

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m
# Not for `make help`: where a driver is in trouble, nvidia-smi takes its time.
GPU := $(if $(filter-out help,$(MAKECMDGOALS)),$(shell nvidia-smi -L >/dev/null 2>&1 && echo ,gpu))
EXTRAS ?=
INSTALLED := .venv/installed-train,dev$(GPU)$(EXTRAS)

BEAM_VERSION := $(shell sed -n 's/^apache-beam==//p' constraints.txt)

DEMO ?= demo
RECIPE ?= article
SPLIT ?= test
BENCH ?= input
EVALUATION ?= evaluation
ENGINE ?=
# As many processes as there are cores, and 3 GB of memory for each of them.
TESTS_AT_ONCE ?= $(shell awk -v cores="$$(nproc)" '/MemTotal/ {n = int($$2 / 3e6); \
  print n < 1 ? 1 : n < cores ? n : cores}' /proc/meminfo)
PYTEST = $(RUN) pytest -n $(TESTS_AT_ONCE) --dist loadfile --timeout 600
FAKE_GCS ?= v1.56.1
AZURITE ?= 3.37.0
ARGS ?=
BEAM ?=

# Variables that a target needs: looked at here, before anything is installed for it.
needs_shards := IMAGES DATASET
needs_retry := DATASET
needs_plan := IMAGES
needs_verify := $(if $(PREDICTIONS),,DATASET)
needs_inspect := DATASET
needs_train := DATASET MODEL
needs_curves := MODEL
needs_report := MODEL
needs_export := MODEL
needs_cluster-up := ENGINE
needs_cluster-down := ENGINE
needs_predict := MODEL PREDICTIONS $(if $(IMAGES),,DATASET)
$(foreach goal,$(MAKECMDGOALS),$(foreach name,$(needs_$(goal)),$(if $($(name)),,\
  $(error $(name) is missing: make $(goal) $(name)=…; see `make help`))))

$(if $(filter test-clusters,$(MAKECMDGOALS)),$(if $(filter-out dask flink spark prism,$(ENGINE)),\
  $(error ENGINE=$(ENGINE): there are dask, flink, spark and prism)))

.PHONY: help
help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	  sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | \
	  while IFS=$$'\t' read -r target text; do printf '  %-17s %s\n' "$$target" "$$text"; done
	@echo
	@echo '  ARGS="--flag=…" appends flags of the program; `$(RUN) pipeline --help`'
	@echo '  (trainer, predictor) lists them. BEAM="--option=…" appends options of Beam.'

.PHONY: install
install: $(INSTALLED)  ## Make .venv, if setup.py or constraints.txt changed (PYTHON=python3 EXTRAS=,stores,gcp)

$(INSTALLED): setup.py constraints.txt
	@if command -v uv >/dev/null; then \
	  test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) .venv; \
	  uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[train,dev$(GPU)$(EXTRAS)]"; \
	else \
	  test -x $(BIN)/python || $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[train,dev$(GPU)$(EXTRAS)]"; \
	fi
	@touch $@

.PHONY: demo
demo: install  ## The whole job on painted sample photos: no network, no GPU (DEMO=demo)
	$(RUN) benchmarks.demo photos --images="$(DEMO)/images"
	$(RUN) pipeline shards --images="$(DEMO)/images" --dataset="$(DEMO)/dataset" --height=60 --width=80
	$(RUN) pipeline verify --dataset="$(DEMO)/dataset"
	$(RUN) trainer train --dataset="$(DEMO)/dataset" --model="$(DEMO)/model" --recipe=demo --weights=none
	$(RUN) predictor predict --dataset="$(DEMO)/dataset" --model="$(DEMO)/model" --predictions="$(DEMO)/predictions"
	$(RUN) predictor verify --dataset="$(DEMO)/dataset" --model="$(DEMO)/model" --predictions="$(DEMO)/predictions"
	$(RUN) predictor evaluate --dataset="$(DEMO)/dataset" --model="$(DEMO)/model" --split=validation --evaluation="$(DEMO)/evaluation"
	@$(RUN) benchmarks.demo summary --dataset="$(DEMO)/dataset" --model="$(DEMO)/model" --predictions="$(DEMO)/predictions"

.PHONY: shards
shards: install  ## IMAGES → DATASET, once (IMAGES= DATASET= ARGS= BEAM=)
	$(RUN) pipeline shards --images="$(IMAGES)" --dataset="$(DATASET)" $(ARGS) $(if $(BEAM),-- $(BEAM))

.PHONY: retry
retry: install  ## Try the rejects of DATASET again, and add what is good now (DATASET= IMAGES= ARGS= BEAM=)
	$(RUN) pipeline retry --dataset="$(DATASET)" $(if $(IMAGES),--images="$(IMAGES)") $(ARGS) $(if $(BEAM),-- $(BEAM))

.PHONY: plan
plan: install  ## What `make shards` would take: time, size, disk (IMAGES= DATASET= ARGS=)
	$(RUN) pipeline plan --images="$(IMAGES)" $(if $(DATASET),--dataset="$(DATASET)") $(ARGS) $(if $(BEAM),-- $(BEAM))

.PHONY: verify
verify: install  ## Read all of DATASET, or of PREDICTIONS, and name what is wrong (DATASET= PREDICTIONS= MODEL=)
ifdef PREDICTIONS
	$(RUN) predictor verify --predictions="$(PREDICTIONS)" $(if $(DATASET),--dataset="$(DATASET)") $(if $(MODEL),--model="$(MODEL)") $(ARGS)
else
	$(RUN) pipeline verify --dataset="$(DATASET)" $(ARGS)
endif

.PHONY: inspect
inspect: install  ## A page to look at: pictures, classes, sizes, copies, rejects (DATASET= INSPECT= IMAGES= ARGS=)
	$(RUN) pipeline inspect --dataset="$(DATASET)" $(if $(INSPECT),--inspect="$(INSPECT)") $(if $(IMAGES),--images="$(IMAGES)") $(ARGS)

.PHONY: train
train: install  ## DATASET → MODEL (DATASET= MODEL= RECIPE=article ARGS=)
	$(RUN) trainer train --dataset="$(DATASET)" --model="$(MODEL)" --recipe=$(RECIPE) $(ARGS)

.PHONY: bench
bench: install  ## Measure one part of the job (BENCH=input|features|shards|predictions DATASET= IMAGES= RECIPE=article ARGS= BEAM=)
	$(RUN) benchmarks $(BENCH) $(if $(DATASET),--dataset="$(DATASET)") $(if $(IMAGES),--images="$(IMAGES)") $(if $(filter input features,$(BENCH)),--recipe=$(RECIPE)) $(ARGS) $(if $(BEAM),-- $(BEAM))

.PHONY: doctor
doctor: install  ## Whether this node can train (DATASET= MODEL=, both optional; RECIPE=article)
	$(RUN) trainer doctor --recipe=$(RECIPE) $(if $(DATASET),--dataset="$(DATASET)") $(if $(MODEL),--model="$(MODEL)") $(ARGS)

.PHONY: curves
curves: install  ## The history of a run as a picture (MODEL=)
	$(RUN) trainer curves --model="$(MODEL)" $(ARGS)

.PHONY: report
report: install  ## The run as a page, MODEL/report.html (MODEL= DATASET= ARGS=)
	$(RUN) trainer report --model="$(MODEL)" $(if $(DATASET),--dataset="$(DATASET)") $(ARGS)

.PHONY: export
export: install  ## MODEL for TensorFlow Serving and LiteRT (MODEL=)
	$(RUN) trainer export --model="$(MODEL)" $(ARGS)

.PHONY: predict
predict: install  ## MODEL + DATASET or photos → PREDICTIONS (MODEL= DATASET= or IMAGES= SPLIT=test PREDICTIONS= ARGS= BEAM=)
	$(RUN) predictor predict --model="$(MODEL)" $(if $(DATASET),--dataset="$(DATASET)") $(if $(IMAGES),--images="$(IMAGES)") --split="$(SPLIT)" --predictions="$(PREDICTIONS)" $(ARGS) $(if $(BEAM),-- $(BEAM))

.PHONY: evaluate
evaluate: SPLIT = validation
evaluate: install  ## How good MODEL is: numbers, tables, a page (MODEL= DATASET= SPLIT=validation, or PREDICTIONS=; EVALUATION=evaluation ARGS=)
	$(RUN) predictor evaluate $(if $(MODEL),--model="$(MODEL)") $(if $(DATASET),--dataset="$(DATASET)") $(if $(PREDICTIONS),--predictions="$(PREDICTIONS)") --split="$(SPLIT)" --evaluation="$(EVALUATION)" $(ARGS)

.PHONY: cluster-up
cluster-up: install  ## Start a real engine on this machine, to try --runner with (ENGINE=dask|flink|spark)
	$(RUN) tests.support.engines up --engine="$(ENGINE)" $(ARGS)

.PHONY: cluster-down
cluster-down: install  ## End what cluster-up has started (ENGINE=dask|flink|spark)
	$(RUN) tests.support.engines down --engine="$(ENGINE)" $(ARGS)

.PHONY: test
test: install  ## The tests that take seconds, and the whole job once (TESTS_AT_ONCE= ARGS=)
	$(PYTEST) -m "not slow and not integration and not clusters" $(ARGS)

.PHONY: test-integration
test-integration: install  ## Whole programs, object stores, Beam's job service (TESTS_AT_ONCE= ARGS=)
	$(PYTEST) -m "integration and not slow" $(ARGS)

.PHONY: test-all
test-all: install  ## Every test but those of real engines: kills and fuzzing too, an hour or so
	$(PYTEST) -m "not clusters" $(ARGS)

.PHONY: test-clusters
test-clusters: install  ## Real engines, which the tests start and end (ENGINE=dask|flink|spark|prism, or all)
	$(RUN) pytest tests/clusters $(if $(ENGINE),-k $(ENGINE)) $(ARGS)

.PHONY: prism
prism: .prism/prism  ## Build Prism, for --runner=PrismRunner (needs Go)

.prism/prism: constraints.txt
	GOBIN="$(CURDIR)/.prism" go install github.com/apache/beam/sdks/v2/go/cmd/prism@v$(BEAM_VERSION)
	@touch $@

.PHONY: store-emulators
store-emulators: install $(BIN)/fake-gcs-server .azurite/node_modules  ## Servers for tests of az:// (by npm) and of Dataflow's staging (by Go); without them these are skipped

$(BIN)/fake-gcs-server:
	GOBIN="$(CURDIR)/$(BIN)" go install github.com/fsouza/fake-gcs-server@$(FAKE_GCS)

.azurite/node_modules:
	npm install --silent --no-fund --no-audit --prefix .azurite azurite@$(AZURITE)

.PHONY: check
check: install  ## Lint, format and types, without writing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: install  ## Rewrite the sources as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: constraints
constraints: install  ## Pin the newest versions of everything, for every extra
	$(BIN)/uv pip compile setup.py --all-extras --universal --python-version 3.11 \
	  --upgrade --no-header --no-annotate --quiet --output-file constraints.txt
