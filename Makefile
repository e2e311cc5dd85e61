# All one needs: `make demo`, `make test`, `make check`, `make bench`. Each installs what it lacks, and does so once.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Go writes below build/ only and fetches nothing; tests/conformance/build.py uses the same folders.
export GOCACHE := $(CURDIR)/build/go-cache
export GOPATH := $(CURDIR)/build/go
export GOENV := off
export GOFLAGS := -mod=mod
export GOPROXY := off
export GOTOOLCHAIN := local
export CGO_ENABLED := 0

# Two at a time would meet in apt-get.
.NOTPARALLEL:

.PHONY: help
help:  ## this text
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

.PHONY: demo
demo: build/demo/shop-client  ## a static Go program, first on its own, then inside a pod's world
	@echo
	@echo 'build/demo/shop-client is a statically linked Go program. No library can be preloaded into it.'
	@echo 'It prints what it finds. Run by itself, that is this machine:'
	@echo
	@echo '$$ build/demo/shop-client'
	@build/demo/shop-client
	@echo
	@echo 'Now the same file inside the world of a demo pod. The pod is made of fresh namespaces on this machine. It has'
	@echo 'a host name, variables, files, a name server and a shop of its own, which nothing out here can reach.'
	@echo
	@echo '$$ mirrord-trace run --target demo -- build/demo/shop-client'
	@$(BIN)/mirrord-trace run --target demo -- build/demo/shop-client
	@echo
	@echo 'What happened: the process never left this machine (it works in the same directory), and nothing was loaded'
	@echo 'into it. Those system calls that ask for files, names and connections were intercepted. So it got the pod'"'"'s host'
	@echo 'name and variables, read a file that only the pod has, asked the pod'"'"'s name server, and its connection left'
	@echo 'from the pod'"'"'s own address.'
	@echo
	@echo 'Look around in the pod'"'"'s world yourself:'
	@echo
	@echo '$$ $(BIN)/mirrord-trace run --target demo -- bash'

.PHONY: test
test: venv .ci/test-packages agent-rootfs  ## the tests
	$(BIN)/pytest

.PHONY: check
check: venv .ci/test-packages agent-rootfs  ## everything that continuous integration checks
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

.PHONY: bench
bench: venv .ci/bench-packages agent-rootfs  ## what interception costs, into benchmarks/results (17 minutes; an idle machine)
	$(BIN)/python -m benchmarks $(BENCH)

.PHONY: venv
venv: $(VENV)/installed  ## the virtual environment in .venv, with mirrord-trace installed from this directory

# An editable install: only changed metadata, and what is compiled, make it stale.
$(VENV)/installed: setup.cfg setup.py mirrord_trace/supervisor/delivery/notify/_loop.c
	@.ci/system-packages python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@echo 'Installing into $(VENV) ...'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

build/demo/shop-client: $(wildcard examples/shop-client/*) | venv
	@echo 'Building $@ ...'
	@mkdir -p $(@D)
	@cd examples/shop-client && XDG_CONFIG_HOME='$(CURDIR)/build/go-config' \
		'$(CURDIR)/$(BIN)/go' build -trimpath -ldflags '-s -w' -o '$(CURDIR)/$@' .

.PHONY: agent-rootfs
agent-rootfs: build/agent-rootfs/usr/bin/mirrord-agent  ## the root filesystem of the agent's image, in build/agent-rootfs

build/agent-image/fetched: agent/rootfs setup.cfg | venv
	@echo 'Fetching what the agent'"'"'s image is made of ...'
	@PYTHON=$(BIN)/python agent/rootfs fetch $(@D)
	@touch $@

AGENT_SOURCES := $(shell find agent/mirrord_agent -name __pycache__ -prune -o -print)
build/agent-rootfs/usr/bin/mirrord-agent: build/agent-image/fetched $(AGENT_SOURCES)
	@echo 'Making build/agent-rootfs ...'
	@PYTHON=$(BIN)/python agent/rootfs assemble $(<D) build/agent-rootfs

.PHONY: .ci/test-packages
.ci/test-packages:
	@.ci/system-packages tests
	@test -x /usr/sbin/nginx || command -v nginx >/dev/null || $(MAKE) --no-print-directory build/conformance/nginx

.PHONY: .ci/bench-packages
.ci/bench-packages:
	@.ci/system-packages bench
	@test -x /usr/sbin/sshd || $(MAKE) --no-print-directory build/benchmarks/openssh-server

# The program alone, of what Debian packages as a service: a package's name is the target's.
build/benchmarks/openssh-server build/conformance/nginx:
	@echo 'Unpacking $(@F) ...'
	@mkdir -p $(@D)
	@cd $(@D) && rm -rf $(@F).unfinished $(@F)_*.deb && apt-get download --quiet=2 $(@F) && \
		dpkg-deb --extract $(@F)_*.deb $(@F).unfinished && rm $(@F)_*.deb && mv $(@F).unfinished $(@F)

.PHONY: clean
clean:  ## remove what make made
	rm -rf build $(VENV) *.egg-info .hypothesis .ruff_cache mirrord_trace/supervisor/delivery/notify/_loop.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
