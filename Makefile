# The two commands a stranger needs: `make demo` and `make test`. Each works as the first one ever run on a
# machine with Rust, gcc, make and Python; what else the build wants (cmake, for zlib) tools/cmake brings along.
.DEFAULT_GOAL := help
CARGO ?= cargo
# cargo-nextest runs the tests side by side and is used where it is installed; plain cargo does as well.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help demo test check fmt doc deny bench dist ci
help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## three regions, an open-loop load and the proxy in one process; prints what users feel, and what to try
	$(CARGO) run --locked --profile quick -- demo

test: ## every test
ifeq ($(NEXTEST),yes)
	$(CARGO) test --locked --quiet --doc
	$(CARGO) nextest run --locked --no-fail-fast
else
	$(CARGO) test --locked --quiet --doc
	$(CARGO) test --locked --no-fail-fast --lib --bins --tests
endif

check: ## formatting and lints, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

fmt: ## format everything
	$(CARGO) fmt

doc: ## the documentation, broken links denied
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --no-deps --document-private-items

deny: ## licences, sources, banned and duplicate crates, and known vulnerabilities where the database can be had
	./tools/deny

# BENCH_ROUNDS and BENCH_LOADS shorten it: make bench BENCH_ROUNDS=3 BENCH_LOADS="h1 tls"
BENCH_ROUNDS ?= 7
BENCH_LOADS ?= h1 h1-100k tls hs h2 conn lat idle idle-tls
bench: ## decision benches, instructions per request, and side by side with the proxies installed here; prints ratios
	$(CARGO) bench --locked --profile quick --bench decision
	$(CARGO) build --locked --release
	EVENKEEL_BIN=$(CURDIR)/target/release/evenkeel benches/relay/instructions.py
	EVENKEEL_BIN=$(CURDIR)/target/release/evenkeel benches/relay/relay.py --rounds $(BENCH_ROUNDS) --loads $(BENCH_LOADS) --refs haproxy nginx --out target/relay.md
	@echo "report: target/relay.md, chart: target/relay.svg"

dist: ## target/dist: release binary, completions, man pages, examples, as an archive with checksums
	./tools/dist

ci: ## what CI runs
	.ci/run
