package config_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/wazzup-relay/wazzup-relay/internal/config"
)

func TestSecretNeverPrints(t *testing.T) {
	t.Parallel()
	secret := config.Secret(canary)
	inside := struct {
		Key  config.Secret
		List []config.Secret
	}{secret, []config.Secret{secret}}

	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&out, verb, secret)
		fmt.Fprintf(&out, verb, inside)
		fmt.Fprintf(&out, verb, &inside)
	}
	fmt.Fprint(&out, secret, inside)
	fmt.Fprint(&out, fmt.Errorf("wrapped: %v", secret))
	body, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(body)
	log := zerolog.New(&out)
	log.Info().Stringer("key", secret).Any("all", inside).Send()

	for _, shape := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary)} {
		if strings.Contains(out.String(), shape) {
			t.Errorf("%q shows in %s", shape, out.String())
		}
	}
	if got, want := fmt.Sprintf("%v|%v", secret, config.Secret("")), "[secret]|"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
