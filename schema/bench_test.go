package schema_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

const benchChannel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"

// benchSend is a typical send of about 250 bytes.
const benchSend = `{"id":"order-1042-shipped","channelId":"` + benchChannel + `","chatType":"whatsapp","chatId":"79998887766","text":"Good news: your order 1042 has been shipped and will arrive on Monday.","expireAt":"2026-11-22T10:15:00Z","meta":{"orderId":"1042"}}`

func BenchmarkDecodeSend(b *testing.B) {
	body := []byte(benchSend)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, faults := schema.Decode("main", schema.KindSend, benchChannel, body); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}

func BenchmarkFingerprint(b *testing.B) {
	body := []byte(benchSend)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		schema.Fingerprint(schema.KindSend, benchChannel, body)
	}
}

func BenchmarkDecodeContacts(b *testing.B) {
	item := `{"id":17,"name":"Contact Name","chats":[{"chatType":"whatsapp","chatId":"79998887766"}]},`
	body := []byte("[" + strings.Repeat(item, 99) + item[:len(item)-1] + "]")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, faults := schema.Decode("main", schema.KindContactsUpsert, "", body); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}

func BenchmarkAppendJSONSent(b *testing.B) {
	e := goldenEvents()["sent"]
	buf := make([]byte, 0, 1<<10)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = e.AppendJSON(buf[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodingJSONSent(b *testing.B) {
	e := goldenEvents()["sent"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(e); err != nil {
			b.Fatal(err)
		}
	}
}
