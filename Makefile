# Everything a newcomer needs: `make demo`, `make test`, `make check`. Each installs what it lacks and is quick afterwards.
#
# Stamp files below build/ say what is done: a stamp older than what it was made from is made again.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := build/stamps

# Nothing outside of this directory is written by Go, and nothing is fetched.
export GOCACHE := $(CURDIR)/build/go-cache
export GOPATH := $(CURDIR)/build/go
export GOFLAGS := -mod=mod
export GOPROXY := off
export GOTOOLCHAIN := local
export GOENV := off
export CGO_ENABLED := 0

.PHONY: help
help:  ## this text
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

# The virtual environment: an editable install, so that only changed metadata makes it stale.
VENV_STAMP := $(STAMPS)/venv
.PHONY: venv
venv: $(VENV_STAMP)  ## the virtual environment in .venv

$(VENV_STAMP): setup.cfg pyproject.toml Makefile
	@mkdir -p $(STAMPS)
	.ci/system-packages python3:python3 venv:python3-venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
