package bench_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

func TestMain(m *testing.M) {
	if role, ok := os.LookupEnv(roleEnv); ok {
		if err := play(role); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", role, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// number is a size from the environment.
func number(b *testing.B, name string, def int) int {
	b.Helper()
	return fromEnv(b, name, def, strconv.Atoi)
}

// duration is a length of time from the environment.
func duration(b *testing.B, name string, def time.Duration) time.Duration {
	b.Helper()
	return fromEnv(b, name, def, time.ParseDuration)
}

// allowed is a rate from the environment; none: no limit.
func allowed(b *testing.B, name string) rate.Rate {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return rate.Rate{}
	}
	r, err := rate.Parse(text)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return r
}

func fromEnv[T int | time.Duration](b *testing.B, name string, def T, parse func(string) (T, error)) T {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	v, err := parse(text)
	if err != nil || v <= 0 {
		b.Fatalf("%s=%s: want something above zero like %v", name, text, def)
	}
	return v
}
