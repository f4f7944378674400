# Few words; each works on a fresh clone and says what it needs.
.PHONY: check test bench
check:
	scripts/test linters unit
test:
	scripts/test
bench:
	bench/run
