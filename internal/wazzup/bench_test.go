package wazzup_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
)

// sink answers every request on a connection at once, with as little work as can
// be, so that the benchmarks measure the client.
func sink(conn net.Conn) {
	const created = "HTTP/1.1 201 Created\r\nContent-Length: 54\r\n\r\n{\"messageId\":\"10d90130-38f6-421c-ada9-951f82884056\"}  "
	reader := bufio.NewReader(conn)
	for {
		length := 0
		for {
			line, err := reader.ReadSlice('\n')
			if err != nil {
				return
			}
			if digits, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
				for _, c := range bytes.TrimSpace(digits) {
					length = length*10 + int(c-'0')
				}
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := reader.Discard(length); err != nil {
			return
		}
		if _, err := io.WriteString(conn, created); err != nil {
			return
		}
	}
}

func sinkURL(b *testing.B) string {
	b.Helper()
	listener, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				sink(conn)
				_ = conn.Close()
			}()
		}
	}()
	b.Cleanup(func() { _ = listener.Close() })
	return "http://" + listener.Addr().String()
}

// BenchmarkSendMessage is a whole call on a kept connection.
func BenchmarkSendMessage(b *testing.B) {
	c, err := wazzup.NewClient(wazzup.Config{BaseURL: sinkURL(b), Key: func() string { return testKey }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.CloseIdleConnections)
	m := testMessage()
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if a := c.SendMessage(b.Context(), m); !a.OK() {
				b.Errorf("%s: %v", a.String(), a.Err)
				return
			}
		}
	})
}

// BenchmarkBareClient is what a plain http.Client does for the same call, without
// a timeout, a phase, or a look at the answer: the floor.
func BenchmarkBareClient(b *testing.B) {
	address := sinkURL(b) + "/v2/send_message"
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	b.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	m := testMessage()
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, address, bytes.NewReader(wazzup.MessageJSON(&m)))
			if err != nil {
				b.Error(err)
				return
			}
			request.Header.Set("Authorization", "Basic "+testKey)
			request.Header.Set("Content-Type", "application/json")
			response, err := client.Do(request)
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, response.Body); err != nil {
				b.Error(err)
			}
			_ = response.Body.Close()
		}
	})
}

func BenchmarkMessageJSON(b *testing.B) {
	m := testMessage()
	b.ReportAllocs()
	for b.Loop() {
		_ = wazzup.MessageJSON(&m)
	}
}

func BenchmarkParse(b *testing.B) {
	for name, body := range map[string]string{
		"sent":    `{"messageId":"10d90130-38f6-421c-ada9-951f82884056"}`,
		"refused": `{"errors":[{"code":"CHANNEL_NO_MONEY","description":"The channel is not paid"}]}`,
	} {
		b.Run(name, func(b *testing.B) {
			status := 201
			if name == "refused" {
				status = 400
			}
			b.ReportAllocs()
			for b.Loop() {
				_ = wazzup.Parse(status, []byte(body), wazzup.WantMessageID)
			}
		})
	}
}
