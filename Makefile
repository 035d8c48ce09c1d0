# lb4d. The two that matter: "make lab" shows it at work, "make test" proves it.
# Both install what they need (Debian packages, as root) and build first.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GO      ?= go
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
LINT_VERSION := v2.15.0

# Tests that touch the kernel run inside one that has IPVS: this machine's own
# or, where that has none, a User-Mode Linux kernel that bin/lab boots.
KERNEL_TESTS := ./l4/... ./tunnel/... ./lab ./cmd/lb4d
OTHER_TESTS   = $(shell $(GO) list ./... | grep -v -E '^lb4d/(l4|tunnel|lab|cmd/lb4d)$$')

.PHONY: all build lab compare bench-directory test test-deps unit kernel-test lint install clean

all: build

build:
	$(BUILD) -o bin/ ./cmd/...

## lab: bring the three-tier lab up, run the scenario, print the table.
lab: build
	bin/lab install
	bin/lab run

## compare: the same events for lb4d and for keepalived with ExaBGP, and the
## broken flows of both.
compare: build
	bin/lab install keepalived exabgp
	bin/lab compare

## bench-directory: lb7d's directory beside a Lua action that asks for each
## request, and a map filled by hand.
bench-directory: build
	bin/lab install
	LAB_REQUIRED=1 $(GO) test -run '^$$' -bench AgainstLua -benchtime 1x -timeout 30m ./l7/directory
	LAB_REQUIRED=1 $(GO) test -run '^$$' -bench 'Map$$' -benchtime 20x -timeout 10m ./l7/directory

## test: every test, those that need a kernel or root included.
test: test-deps
	LAB_REQUIRED=1 $(GO) test -timeout 15m $(OTHER_TESTS)
	$(MAKE) kernel-test

# The real parts that tests speak to: FRR, etcd, and a DynamoDB.
DYNALITE ?= $(HOME)/.cache/lb4d
test-deps: build
	bin/lab install systemd frr etcd-server $$(command -v npm >/dev/null || echo npm)
	test -d $(DYNALITE)/node_modules/dynalite || npm install --silent --no-audit --no-fund --prefix $(DYNALITE) dynalite@4.0.0

kernel-test: build
	LAB_REQUIRED=1 $(GO) test -timeout 30m -p 1 -exec '$(CURDIR)/bin/lab test-exec' $(KERNEL_TESTS)

## unit: what needs neither root nor a kernel, in seconds.
unit:
	$(GO) test -short ./plan ./config ./l4 ./tunnel ./health ./maintenance ./control

lint: bin/tools/golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	bin/tools/golangci-lint run ./...

bin/tools/golangci-lint:
	GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

## install: the programs, the unit and its user, for the host it runs on.
PREFIX := /usr
install: build
	install -d -m 0755 $(DESTDIR)/etc/lb
	install -D -m 0755 bin/lb4d  $(DESTDIR)$(PREFIX)/sbin/lb4d
	install -D -m 0755 bin/lbctl $(DESTDIR)$(PREFIX)/bin/lbctl
	install -D -m 0644 packaging/systemd/lb4d.service $(DESTDIR)/lib/systemd/system/lb4d.service
	install -D -m 0644 packaging/systemd/lb4d.sysusers $(DESTDIR)/usr/lib/sysusers.d/lb4d.conf
	install -D -m 0644 packaging/systemd/lb4d.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/lb4d.conf
	install -D -m 0644 packaging/systemd/lb4d.modules $(DESTDIR)/usr/lib/modules-load.d/lb4d.conf
	install -D -m 0755 bin/lb7d  $(DESTDIR)$(PREFIX)/sbin/lb7d
	install -D -m 0644 packaging/systemd/lb7d.service $(DESTDIR)/lib/systemd/system/lb7d.service
	install -D -m 0644 packaging/systemd/lb7d.sysusers $(DESTDIR)/usr/lib/sysusers.d/lb7d.conf
	install -D -m 0644 packaging/systemd/lb7d.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/lb7d.conf
	install -D -m 0644 config/reference-lb7d.toml $(DESTDIR)$(PREFIX)/share/doc/lb4d/lb7d.toml
	install -D -m 0644 config/reference.toml $(DESTDIR)$(PREFIX)/share/doc/lb4d/lb4d.toml
	install -D -m 0644 packaging/haproxy/directory.cfg $(DESTDIR)$(PREFIX)/share/doc/lb4d/haproxy-directory.cfg

clean:
	rm -rf bin
