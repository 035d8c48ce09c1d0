package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"lb4d/lab"
)

// compare puts lb4d and what it replaces through the same trials, one after
// the other, each in a machine of its own.
func compare(args []string) (int, error) {
	f := flagSet("compare")
	sizes := sizeFlags(f)
	flows := f.Int("flows", 200, "downloads in flight, from as many addresses")
	seed := f.Uint64("seed", 0, "of the random history; 0: another one each time")
	alone := f.Bool("alone", false, "try lb4d alone")
	asJSON := f.Bool("json", false, "print the result as JSON")
	var only []string
	f.Func("event", "`name` of an event to play, many times if need be; all where none", func(s string) error {
		if !slices.Contains(lab.TrialNames(), s) {
			return fmt.Errorf("there are %q", lab.TrialNames())
		}
		only = append(only, s)
		return nil
	})
	if err := parse(f, args); err != nil {
		return statusUsage, err
	}
	if f.NArg() > 0 {
		return statusUsage, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if *sizes.balancer != string(lab.LB4D) {
		return statusUsage, errors.New("both balancers are tried: -balancer has no use here; -alone tries lb4d alone")
	}
	if *flows < 1 || *flows > sizes.sizes().Users {
		return statusUsage, fmt.Errorf("-flows %d: not 1 to %d, the number of users' addresses", *flows, sizes.sizes().Users)
	}
	up, err := sizes.request()
	if err != nil {
		return statusUsage, err
	}
	if up.Up.Sizes.LB7 < 2 {
		return statusUsage, errors.New("one LB7 host is added, so at least 2 are needed")
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1e6) + 1
	}
	try := lab.Request{Verb: "try", Try: &lab.TryRequest{Flows: *flows, Seed: *seed, Only: only}}
	var c lab.Comparison
	for _, of := range []struct {
		balancer lab.Balancer
		trials   *lab.Trials
	}{{lab.LB4D, &c.Ours}, {lab.Keepalived, &c.Theirs}} {
		if of.balancer != lab.LB4D && *alone {
			continue
		}
		fmt.Fprintf(os.Stderr, "==== %s\n", of.balancer)
		up.Up.Balancer, up.Up.Pool = of.balancer, lab.TrialPool(up.Up.Sizes)
		var answer bytes.Buffer
		code, err := private(up, try, os.Stderr, &answer)
		if err == nil && code == 0 {
			err = json.Unmarshal(answer.Bytes(), of.trials)
		}
		switch {
		case err == nil && code == 0:
		case of.balancer == lab.LB4D || errors.Is(err, context.Canceled):
			return code, err
		default:
			// What we promise does not depend on it.
			fmt.Fprintf(os.Stderr, "lab compare: %s was not measured: %v\n", of.balancer, err)
			*of.trials = lab.Trials{Balancer: of.balancer}
		}
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(c)
	} else {
		fmt.Println()
		err = c.Write(os.Stdout)
	}
	if err == nil && !c.Kept() {
		return statusFault, nil
	}
	return 0, err
}
