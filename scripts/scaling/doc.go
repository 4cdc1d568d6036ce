// Command scaling prints the tables of docs/SCALING.md: what so many files cost
// and how long things take, computed from prices, quotas and rates. Its
// benchmarks measure the rates; scripts/scale runs both.
//
//	main.go     the command
//	model.go    the arithmetic
//	rates.go    prices, quotas, and the rates that were measured
package main
