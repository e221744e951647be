package main_test

import (
	"slices"
	"testing"

	main "github.com/wazzup-relay/wazzup-relay/cmd/wazzupctl"
)

// TestDoctorOnTheGuard: what keeps webhooks from coming is named.
func TestDoctorOnTheGuard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer string
		want         []string
	}{
		{"no guard", `{"webhooksUrl":null}`, nil},
		{"well", `{"guard":{"state":"kept"}}`, []string{"ok webhook guard"}},
		{"set by hand", `{"guard":{"state":"suspended"}}`, []string{"warning webhook guard"}},
		{"taken over", `{"guard":{"state":"drifted"}}`, []string{"broken webhook guard"}},
		{"taken over again and again", `{"guard":{"state":"stopped","opensOn":"2026-11-22T10:00:00Z"}}`, []string{"broken webhook guard"}},
		{"silent", `{"guard":{"state":"kept"},"silentSince":"2026-11-22T10:00:00Z"}`, []string{"ok webhook guard", "broken statuses"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := main.GuardChecks(tt.answer)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
		})
	}
}
