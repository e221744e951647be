package schematest_test

import (
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/schematest"
)

// What the rigs pay for each event that they see.
func BenchmarkEvent(b *testing.B) {
	h := headers()
	for b.Loop() {
		if err := schematest.Event(sent, h, []byte(body)); err != nil {
			b.Fatal(err)
		}
	}
}
