# The two commands a stranger needs: `make demo` and `make test`. Each works as the first one ever run on a
# machine with Rust, gcc, make and Python; what else the build wants (cmake, for zlib) tools/cmake brings along.
.DEFAULT_GOAL := help
CARGO ?= cargo
# cargo-nextest runs the tests side by side and is used where it is installed; plain cargo does as well.
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help demo test check fmt doc deny bench ci
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

bench: ## decision benches
	$(CARGO) bench --locked

ci: ## what CI runs
	.ci/run
