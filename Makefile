# What people do in this repository. Everything needs Go and make; what needs more says so.

MODULES := connector deploy metaserver pkg processor standalone
BIN     := $(CURDIR)/bin

# Arguments of the program, such as: make run ARGS='--data /var/lib/linker --host 127.0.0.1'
ARGS ?=
# The race detector needs cgo and a C compiler. auto: if it works here; yes: it must; no: without.
RACE ?= auto
# Further flags of go test.
TESTFLAGS ?=
# How long each fuzz target runs.
FUZZTIME ?= 30s

GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# A checkout without git, or one that git does not trust, builds as well.
export GOFLAGS := $(strip $(shell go env GOFLAGS) -buildvcs=false)

.DEFAULT_GOAL := build

# How many domains make run starts, 1 to 16, linked in a ring; without it those of the network file, one at first.
DOMAINS ?=

# A network of domains in one process; Ctrl-C drains and ends it.
.PHONY: run
run: build
	@exec $(BIN)/standalone $(if $(DOMAINS),--domains '$(DOMAINS)') $(ARGS)

# All programs, into bin. VERSION is what --version says; without it, devel.
PROGRAMS := ./connector/cmd/connector ./processor/cmd/processor ./processor/cmd/linkerctl ./metaserver/cmd/metaserver ./standalone/cmd/console ./standalone
VERSION  ?=

.PHONY: build
build:
	@mkdir -p $(BIN)
	@go build -ldflags '$(if $(VERSION),-X main.version=$(VERSION))' -o $(BIN)/ $(PROGRAMS)

# What names real servers to tests: those of make test run on embedded ones.
SERVERS := KAFKA_HOSTS NATS_URL REDIS_URL MONGODB_URI

# Five minutes of kills, cuts and frozen processes, and what became of every message: see
# docs/torture.md. TORTURE='--duration 1m' is a shorter one, TORTURE=--help says what else there is.
TORTURE ?=

.PHONY: torture
torture:
	@mkdir -p $(BIN)
	@go build -o $(BIN)/ ./standalone/cmd/linker-torture
	@exec $(BIN)/linker-torture $(TORTURE)

# The standard set of measurements, beside a bare relay: a few minutes, in which the machine should have nothing
# else to do. See docs/bench.md. BENCH='open --rate 10000' is another one, BENCH=--help says what there is.
BENCH ?= set --baseline

.PHONY: bench
bench:
	@mkdir -p $(BIN)
	@go build -ldflags '-X main.version=$(or $(VERSION),$(shell git describe --always --dirty 2>/dev/null))' -o $(BIN)/ ./standalone ./standalone/cmd/linker-bench
	@exec $(BIN)/linker-bench $(BENCH)

# Vet with the flags of the tests, so that both compile everything just once. -count=1: the tests
# of the architecture look at all modules, and the cache of test results does not know that. The
# end-to-end tests measure time as a user sees it, so they have the machine for themselves.
E2E := github.com/linkerhq/linker/standalone/e2e

.PHONY: test
test:
	@unset $(SERVERS); if .ci/race '$(RACE)'; then race=-race; elif [ $$? -eq 2 ]; then race=; else exit 1; fi; \
	go vet $$race work && go test -count=1 $$race $(TESTFLAGS) $$(go list work | grep -vx $(E2E)) && \
	go test -count=1 $$race $(TESTFLAGS) $(E2E)

# The conformance suites and the end-to-end tests on the servers that the variables name. Where
# LINKER_NATIVE is 1, those of deploy/native are meant, and tests may kill and start them.
SUITES := ./pkg/broker/kafka/... ./pkg/broker/nats/... ./pkg/presence/redis/... ./pkg/mailbox/mongo/...

.PHONY: test-services
test-services:
	@missing=; $(foreach s,$(SERVERS),[ -n "$$$s" ] || missing="$$missing $s";) [ -z "$$missing" ] || { echo "not set:$$missing. They name the servers to test with;" \
	'run deploy/native/services install && deploy/native/services start && eval "$$(deploy/native/services env)"' >&2; exit 1; }
	@if .ci/race '$(RACE)'; then race=-race; elif [ $$? -eq 2 ]; then race=; else exit 1; fi; \
	go test -count=1 $$race $(TESTFLAGS) $(SUITES) && go test -count=1 $$race -timeout 20m $(TESTFLAGS) $(E2E)

# What CI asks for besides the tests.
.PHONY: check
check: format vet lint modules tidy size

.PHONY: format
format:
	@unformatted=$$(gofmt -l $(MODULES) .ci docs) && if [ -n "$$unformatted" ]; then echo "gofmt -w is needed by:"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	go vet work
	go fix -diff work

.PHONY: lint
lint: $(BIN)/tools
	@unformatted=$$($(BIN)/gofumpt -l $(MODULES) .ci) && if [ -n "$$unformatted" ]; then echo "gofumpt -w is needed by:"; echo "$$unformatted"; exit 1; fi
	$(BIN)/staticcheck work

$(BIN)/tools: Makefile
	GOBIN=$(BIN) go install $(GOFUMPT)
	GOBIN=$(BIN) go install $(STATICCHECK)
	@touch $@

# Each module builds without the workspace, as it does in an image of its own.
.PHONY: modules
modules:
	@for m in $(MODULES); do echo "GOWORK=off go build ./$$m/..." && (cd $$m && GOWORK=off go build ./...) || exit 1; done

# The module files say what the code needs, and agree with each other.
.PHONY: tidy
tidy:
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy -diff) || exit 1; done
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && cp -r go.work go.work.sum $(MODULES) "$$copy" && \
	(cd "$$copy" && go work sync) && for m in $(MODULES); do diff -u $$m/go.mod "$$copy/$$m/go.mod" || exit 1; done

# What has grown beyond the sizes that the style guide names; a report, no verdict.
.PHONY: size
size:
	@.ci/size $(MODULES)

.PHONY: fuzz
fuzz:
	@mkdir -p $(BIN) && cache=$$(go env GOCACHE)/fuzz && built= && \
	grep -rnoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' $(MODULES) | sed -E 's|/[^/:]+:[0-9]+:func | |' | sort | \
	while read -r dir target; do echo "fuzz $$dir $$target for $(FUZZTIME)"; \
	[ "$$built" = "$$dir" ] || go test -c -fuzz . -o $(BIN)/fuzz.test "./$$dir" || exit 1; built=$$dir; \
	(cd "$$dir" && exec $(BIN)/fuzz.test -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) -test.fuzzcachedir "$$cache/$$dir") || exit 1; done

.PHONY: cover
cover:
	go test -count=1 -coverpkg=work -coverprofile=$(BIN)/cover.out work
	@go tool cover -func=$(BIN)/cover.out | tail -1

.PHONY: clean
clean:
	rm -rf $(BIN)
