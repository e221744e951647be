# A bare `make` lists the targets. Nothing is installed outside of the build
# cache: the tools are pinned in internal/tools and built when first used.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

FUZZTIME ?= 20s
BENCHTIME ?= 1x
RUNS ?= 50
BENCH ?= .
# Modules beside the one of this folder.
MODULES := $(patsubst %/go.mod,%,$(wildcard internal/*/go.mod))
TOOL := go tool -modfile=$(CURDIR)/internal/tools/go.mod
LINT := $(TOOL) golangci-lint

##@ Every day
.PHONY: build
build: ## Build worker, ingest and wazzupctl into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

.PHONY: dev
dev: ## Run everything in one process: NATS, a simulated Wazzup, worker and ingest
	go run ./cmd/wazzupctl dev

.PHONY: test
test: ## Run the tests with the race detector
	go test -race ./...

.PHONY: fmt
fmt: ## Format the code and tidy the modules
	$(LINT) fmt
	go mod tidy
	for module in $(MODULES); do go mod tidy -C "$$module"; done

.PHONY: generate
generate: ## Write the generated files anew
	go generate ./...

##@ Before a commit
.PHONY: check
check: check-static test-shuffle ## Everything that must hold, except test-system

.PHONY: check-static
check-static: check-build lint check-tidy check-fix check-generated check-asyncapi check-files vuln ## check without its tests

.PHONY: check-build
check-build: # compiles all programs and tests, those of test-system too
	go build ./...
	go vet -tags system ./...
	for module in $(MODULES); do (cd "$$module" && go vet ./...); done

.PHONY: lint
lint: ## Lint and check the formatting (.golangci.yml)
	$(LINT) config verify
	$(LINT) run ./...
	for module in $(MODULES); do (cd "$$module" && $(LINT) run --config $(CURDIR)/.golangci.yml ./...); done

.PHONY: test-shuffle
test-shuffle: # the order is printed; -shuffle=N repeats it
	go test -race -shuffle=on ./...

.PHONY: check-tidy
check-tidy:
	go mod tidy -diff
	for module in $(MODULES); do go mod tidy -C "$$module" -diff; done

.PHONY: check-fix
check-fix: # what a newer Go says more plainly
	go fix -diff ./...

.PHONY: check-generated
check-generated: # generated files are those that `make generate` writes
	internal/tools/generated.sh

.PHONY: check-asyncapi
check-asyncapi: ## Have the official parser read the AsyncAPI document (skipped without Node.js)
	internal/tools/asyncapi/check.sh

.PHONY: check-files
check-files: # compose files, shell scripts; tests of the folder deploy check JSON, YAML and NATS's files
	go run -C internal/tools ./composeconfig $(CURDIR)/docker-compose.yml
	go run -C internal/tools ./composeconfig $(CURDIR)/docker-compose.yml $(CURDIR)/deploy/compose.tls.yml
	for script in .ci/run internal/tools/*.sh internal/tools/*/*.sh examples/shell/*.sh; do bash -n "$$script"; done

.PHONY: vuln
vuln: ## Look for known vulnerabilities (skipped where the database is out of reach)
	internal/tools/vuln.sh

##@ Longer
.PHONY: test-system
test-system: ## Run the tests that kill, freeze and restart whole processes (needs Node.js with npm)
	go test -race -count=1 -timeout 10m -tags system -run 'Kill|Cluster|Process|Outlives' ./queue/... ./cmd/wazzupctl ./deploy
	go test -race -count=1 -timeout 20m -tags system -skip '^TestClient' ./internal/systemtest/...

.PHONY: test-clients
test-clients: ## Run the examples of other languages against whole processes (needs Node.js, Python, jq)
	go test -race -count=1 -timeout 10m -v -tags system -run '^TestClient' ./internal/systemtest

.PHONY: test-model
test-model: ## Hold RUNS (50) random schedules to the promises; MODEL_SEED=n repeats one
	MODEL_RUNS=$(RUNS) go test -race -count=1 -timeout 60m -run '^TestModel$$' -parallel 4 ./sender

.PHONY: bench
bench: ## Measure the worker beside a bare loop (BENCH=regexp BENCHTIME=1x)
	cd internal/bench && go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -timeout 60m ./...

.PHONY: bench-million
bench-million: ## Measure a healthy channel beside a million commands that are stuck
	BENCH_BACKLOG=1000000 BENCH_MESSAGES=$${BENCH_MESSAGES:-100000} $(MAKE) bench BENCH=Stuck
	BENCH_BACKLOG=1000000 BENCH_MESSAGES=2000 BENCH_RATE=500/5s BENCH_ROUNDS=1 $(MAKE) bench BENCH=Stuck

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (20s)
	internal/tools/fuzz.sh $(FUZZTIME)

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin
	find . -name '*.test' -type f -not -path './.git/*' -delete

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
