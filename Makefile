# configsvc: `make up` starts a secure three-member cluster here; `make test` is what a change must pass.
SHELL := /bin/sh
PY := .venv/bin/python
RAFT_TESTDATA ?= ../shared/raft-testdata

.PHONY: help up down clean tour demo-patroni test check fmt proto bench sim crash damage fuzz foreign mutants faketime faults
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1@/' | awk -F@ '{printf "%-20s %s\n",$$1,$$2}'

up: ## a secure three-member cluster with an agent on this machine (MEMBERS=5, PORT_BASE=…)
	@.ci/bootstrap runtime && $(PY) -m configsvc.cli.devcluster up

down: ## stop exactly what `make up` started; keeps the data
	@if [ -x $(PY) ]; then $(PY) -m configsvc.cli.devcluster down; else echo "nothing runs"; fi

clean: ## stop it and forget data and certificates
	@if [ -x $(PY) ]; then $(PY) -m configsvc.cli.devcluster clean; else rm -rf .dev; fi

tour: ## what it can do, shown on the running cluster (≤ 60 s)
	@.ci/bootstrap runtime && $(PY) -m configsvc.cli.devcluster tour

demo-patroni: ## PostgreSQL failover by Patroni on a cluster of its own (≈ 90 s; needs PostgreSQL)
	@.ci/bootstrap runtime && $(PY) examples/patroni/demo.py

test: ## everything a change must pass
	@.ci/bootstrap dev && $(PY) -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS) tests

check: ## format, lint, types, import rules, generated code
	@.ci/bootstrap dev && .ci/check

fmt: ## format and fix what can be fixed
	@.ci/bootstrap dev && .venv/bin/ruff format . && .venv/bin/ruff check --fix .

proto: ## regenerate code from .proto files
	@.ci/bootstrap dev && $(PY) -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. configsvc/proto/*.proto

bench: ## side by side with etcd (BENCH_QUICK=1 takes a minute; results in bench/results)
	@.ci/bootstrap dev && $(PY) -m bench

SEEDS ?= 400
SEED_START ?= 0
sim: ## whole members in virtual time under seeded faults (SEEDS=n SEED_START=k)
	@.ci/bootstrap dev && $(PY) -m tests.simulation.node.run --seeds $(SEEDS) --start $(SEED_START)

IMAGES ?= 1000000
crash: ## crash images of the log's protocols (IMAGES=n, or STORY=n for one)
	@.ci/bootstrap dev && $(PY) -m tests.faults.crash_images.run --images $(IMAGES) $(if $(STORY),--story $(STORY))

BITS ?= 20000
damage: ## a history database with pages zeroed and bits turned (BITS=n of them; 0: every bit of a smaller file)
	@.ci/bootstrap dev && $(PY) -m tests.faults.history_images.run --bits $(BITS)

INPUTS ?= 1000000
fuzz: ## bytes of strangers: HTTP/2, HTTP/1.1, gRPC framing, gateway JSON (INPUTS=n SEED=k ENGINE=atheris)
	@.ci/bootstrap dev && $(PY) -m tests.fuzz.run --inputs $(INPUTS) $(if $(SEED),--seed $(SEED)) $(if $(ENGINE),--engine $(ENGINE))

foreign: ## curl, grpcio, etcdctl, nghttp, h2load, h2spec, Node's and Python's clients against a member (PORT_BASE=…)
	@.ci/bootstrap dev && $(PY) -m tests.foreign.tools && $(PY) -m tests.foreign.run $(if $(PORT_BASE),--port $(PORT_BASE))

mutants: ## known bugs planted one at a time; each must be caught (MUTANTS="5 31")
	@.ci/bootstrap dev && $(PY) -m tests.simulation.mutants.run $(MUTANTS)

faketime: ## unpack Debian's libfaketime into build/, for the clock jumps of `make faults`
	@mkdir -p build/faketime && cd build/faketime && apt-get -q download libfaketime && for deb in libfaketime_*.deb; do dpkg -x $$deb .; done

faults: ## real processes under kill -9, pauses, partitions, bad and full disks: the long loops
	@.ci/bootstrap dev && FAULTS_LONG=1 $(PY) -m pytest -q -s -p no:cacheprovider tests/faults/process
	@AGENT_KILLS=1000 AGENT_PLAN_CASES=1000 $(PY) -m pytest -q -p no:cacheprovider -k "at_random or predicted" tests/unit/agent/test_agent_commits.py tests/integration/test_agent_process.py tests/integration/test_agent_plan_is_apply.py
