package rate_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/rate"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		text string
		want rate.Rate
		back string // what String gives; "" = text
	}{
		{name: "no limit", text: "0"},
		{name: "the account's default", text: "500/5s", want: rate.Rate{N: 500, Per: 5 * time.Second}},
		{name: "the bulk default", text: "20/1m", want: rate.Rate{N: 20, Per: time.Minute}},
		{name: "an hour", text: "1/1h", want: rate.Rate{N: 1, Per: time.Hour}},
		{name: "mixed units", text: "7/1m30s", want: rate.Rate{N: 7, Per: 90 * time.Second}},
		{name: "seconds become a minute", text: "20/60s", want: rate.Rate{N: 20, Per: time.Minute}, back: "20/1m"},
		{name: "the lowest bounds", text: "1/1ms", want: rate.Rate{N: 1, Per: time.Millisecond}},
		{name: "the highest bounds", text: "1000000/24h", want: rate.Rate{N: 1_000_000, Per: 24 * time.Hour}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := rate.Parse(tt.text)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.text, err)
			}
			if got != tt.want {
				t.Errorf("Parse(%q) = %+v, want %+v", tt.text, got, tt.want)
			}
			want := tt.back
			if want == "" {
				want = tt.text
			}
			if got.String() != want {
				t.Errorf("Parse(%q).String() = %q, want %q", tt.text, got, want)
			}
		})
	}
}

func TestIn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rate string
		in   time.Duration
		want int
	}{
		{"0", time.Hour, 0},
		{"20/1m", time.Minute, 20},
		{"20/1m", 20 * time.Second, 6},
		{"20/1m", time.Second, 0},
		{"500/5s", time.Hour, 360_000},
		{"1000000/1ms", 24 * time.Hour, 86_400_000_000_000},
	} {
		r, err := rate.Parse(tt.rate)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.In(tt.in); got != tt.want {
			t.Errorf("%s in %v: got %d, want %d", tt.rate, tt.in, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, says string }{
		{"nothing", "", "write 500/5s"},
		{"a bare number", "500", "write 500/5s"},
		{"no count", "/5s", "write 500/5s"},
		{"a sign", "+5/5s", "write 500/5s"},
		{"a negative count", "-5/5s", "write 500/5s"},
		{"a fraction", "0.5/1s", "write 500/5s"},
		{"a space", "500 / 5s", "write 500/5s"},
		{"a count beyond 32 bits", "5000000000/1s", "write 500/5s"},
		{"zero in an interval", "0/5s", "1 to 1000000"},
		{"too many", "1000001/5s", "1 to 1000000"},
		{"no interval", "500/", "no duration"},
		{"no unit", "500/5", "no duration"},
		{"two slashes", "500/5s/5s", "no duration"},
		{"no length", "500/0s", "1ms to 24h"},
		{"a negative length", "500/-5s", "1ms to 24h"},
		{"too short", "500/999us", "1ms to 24h"},
		{"too long", "500/24h1s", "1ms to 24h"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := rate.Rate{N: 3, Per: time.Second}
			err := r.UnmarshalText([]byte(tt.text))
			if err == nil {
				t.Fatalf("UnmarshalText(%q) = %v, want an error", tt.text, r)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("UnmarshalText(%q): %q does not say %q", tt.text, err, tt.says)
			}
			if (r != rate.Rate{N: 3, Per: time.Second}) {
				t.Errorf("UnmarshalText(%q) left %v behind its error", tt.text, r)
			}
		})
	}
}

func TestTravelsAsText(t *testing.T) {
	t.Parallel()
	var got struct{ Rate rate.Rate }
	if err := json.Unmarshal([]byte(`{"Rate":"20/1m"}`), &got); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Rate":"20/1m"}`; string(back) != want {
		t.Errorf("got %s, want %s", back, want)
	}
}

func TestShortDuration(t *testing.T) {
	t.Parallel()
	tests := []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"},
		{10 * time.Second, "10s"},
		{2 * time.Minute, "2m"},
		{10 * time.Minute, "10m"},
		{90 * time.Second, "1m30s"},
		{time.Hour, "1h"},
		{20 * time.Hour, "20h"},
		{time.Hour + time.Second, "1h0m1s"},
		{90 * time.Minute, "1h30m"},
		{168 * time.Hour, "168h"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			if got := rate.ShortDuration(tt.d); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0", "500/5s", "20/1m", "0/1s", "1/24h", "7/1m30s", "/", "1/1ns", "1/0.5s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := rate.Parse(text)
		if err != nil {
			return
		}
		if !r.IsZero() && (r.N < 1 || r.N > rate.MaxN || r.Per < rate.MinPer || r.Per > rate.MaxPer) {
			t.Errorf("Parse(%q) = %+v is out of bounds", text, r)
		}
		again, err := rate.Parse(r.String())
		if err != nil || again != r {
			t.Errorf("Parse(%q) = %v, which reads back as %v, %v", text, r, again, err)
		}
	})
}
