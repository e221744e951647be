package sender_test

import (
	"math"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/sender"
)

func TestBackoffDelay(t *testing.T) {
	t.Parallel()
	b := sender.Backoff{Min: time.Second, Max: 5 * time.Minute}
	tests := []struct {
		name     string
		b        sender.Backoff
		attempt  int
		rnd      float64
		want     time.Duration
		accuracy time.Duration
	}{
		{name: "first, shortest", b: b, attempt: 1, want: time.Second},
		{name: "first, half", b: b, attempt: 1, rnd: 0.5, want: 1500 * time.Millisecond},
		{name: "second, half", b: b, attempt: 2, rnd: 0.5, want: 2500 * time.Millisecond},
		{name: "third, nearly longest", b: b, attempt: 3, rnd: 0.999999999, want: 8 * time.Second, accuracy: time.Microsecond},
		{name: "ninth reaches the longest", b: b, attempt: 9, rnd: 0.5, want: time.Second + 299*time.Second/2},
		{name: "hundredth", b: b, attempt: 100, rnd: 0.5, want: time.Second + 299*time.Second/2},
		{name: "shortest even then", b: b, attempt: 100, want: time.Second},
		{name: "zero is the first", b: b, attempt: 0, rnd: 0.5, want: 1500 * time.Millisecond},
		{name: "negative is the first", b: b, attempt: -7, rnd: 0.5, want: 1500 * time.Millisecond},
		{name: "no room", b: sender.Backoff{Min: time.Second, Max: time.Second}, attempt: 5, rnd: 0.9, want: time.Second},
		{name: "no overflow", b: sender.Backoff{Min: time.Hour, Max: math.MaxInt64}, attempt: math.MaxInt, want: time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := tt.b.Delay(tt.attempt, func() float64 { return tt.rnd })
			if (got - tt.want).Abs() > tt.accuracy {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	b := sender.DefaultBackoff()
	for attempt := range 200 {
		if got := b.Delay(attempt, nil); got < b.Min || got > b.Max {
			t.Fatalf("attempt %d: %v is outside of %v", attempt, got, b)
		}
	}
}

func TestBackoffHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	b := sender.DefaultBackoff()
	half := func() float64 { return 0.5 }
	for _, tt := range []struct {
		name       string
		hint, want time.Duration
	}{
		{"no hint", 0, 1500 * time.Millisecond},
		{"shorter than the wait", time.Second, 1500 * time.Millisecond},
		{"longer", 7 * time.Second, 7 * time.Second},
		{"longer than the longest wait", 10 * time.Minute, 10 * time.Minute},
		{"a day", 24 * time.Hour, sender.MaxRetryAfter},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := b.DelayAfter(1, tt.hint, half); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestBackoffText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]sender.Backoff{
		"1s..5m":     {Min: time.Second, Max: 5 * time.Minute},
		"10ms..1h":   {Min: 10 * time.Millisecond, Max: time.Hour},
		"90s..1h30m": {Min: 90 * time.Second, Max: 90 * time.Minute},
		"10m..10h":   {Min: 10 * time.Minute, Max: 10 * time.Hour},
		"5s..5s":     {Min: 5 * time.Second, Max: 5 * time.Second},
		" 1s .. 2s ": {Min: time.Second, Max: 2 * time.Second},
	} {
		var got, again sender.Backoff
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
		if err := again.UnmarshalText([]byte(got.String())); err != nil || again != want {
			t.Errorf("%q is written as %q, which reads as %v, %v", text, got, again, err)
		}
	}
	if got := sender.DefaultBackoff().String(); got != "1s..5m" {
		t.Errorf("the default is written as %q", got)
	}
	for _, text := range []string{"", "1s", "1s-5m", "..", "1s..", "..5m", "5m..1s", "0s..5m", "-1s..5m", "a..b", "1..5", "1s..5m..9m"} {
		kept := sender.Backoff{Min: 1, Max: 2}
		if err := kept.UnmarshalText([]byte(text)); err == nil || kept != (sender.Backoff{Min: 1, Max: 2}) {
			t.Errorf("%q: got %v, %v, want an error and no change", text, kept, err)
		}
	}
}

func FuzzBackoffText(f *testing.F) {
	for _, seed := range []string{"1s..5m", "10ms..1h", "..", "1h2m3s4ms..9h", "-1s..1s", "1ns..2562047h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b, again sender.Backoff
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Fatalf("%q is written as %q, which reads as %v, %v", text, b, again, err)
		}
		for _, attempt := range []int{1, 2, 63, 1000} {
			if got := b.Delay(attempt, nil); got < b.Min || got > b.Max {
				t.Fatalf("%v after %d attempts is outside of %v", got, attempt, b)
			}
		}
	})
}
