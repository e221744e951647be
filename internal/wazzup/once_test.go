package wazzup_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/wazzup-relay/wazzup-relay/internal/wazzup"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// tally counts how often each message reached a server whole.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func newTally() *tally { return &tally{seen: make(map[string]int)} }

func (y *tally) add(body []byte) {
	var message struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(body, &message) != nil {
		return
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.seen[message.Text]++
}

func (y *tally) of(text string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.seen[text]
}

// readBody reads one HTTP/1 request and returns its body.
func readBody(r *bufio.Reader) ([]byte, bool) {
	request, err := http.ReadRequest(r)
	if err != nil {
		return nil, false
	}
	body, err := io.ReadAll(request.Body)
	return body, err == nil
}

// checkOnce sends many messages, several at a time, and compares what each answer
// tells with what the server saw. It returns how many ended in each phase.
func checkOnce(t *testing.T, c *wazzup.Client, server *tally, each int) (phases map[schema.Phase]int) {
	t.Helper()
	answers := make([][]wazzup.Answer, 4)
	var wg sync.WaitGroup
	for sender := range answers {
		answers[sender] = make([]wazzup.Answer, each)
		wg.Go(func() {
			for i := range each {
				m := testMessage()
				m.Text = fmt.Sprintf("%d/%d", sender, i)
				answers[sender][i] = c.SendMessage(t.Context(), m)
			}
		})
	}
	wg.Wait()
	phases = make(map[schema.Phase]int)
	for sender := range answers {
		for i, a := range answers[sender] {
			phases[a.Phase]++
			seen := server.of(fmt.Sprintf("%d/%d", sender, i))
			switch {
			case seen > 1:
				t.Errorf("a message reached the vendor %d times: %s (%v)", seen, a.String(), a.Err)
			case a.Phase == schema.PhaseNotSent && seen != 0:
				t.Errorf("a message that was not sent reached the vendor: %s (%v)", a.String(), a.Err)
			case a.Phase == schema.PhaseAnswered && seen != 1:
				t.Errorf("a message was answered that the vendor never saw: %s", a.String())
			}
			checkError(t, a)
		}
	}
	return phases
}

// TestStaleConnectionsNeverSendTwice: the server closes every connection after an
// answer, without a word, so that many requests meet a connection that is just
// going away.
func TestStaleConnectionsNeverSendTwice(t *testing.T) {
	t.Parallel()
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	const created = "HTTP/1.1 201 Created\r\nContent-Length: 18\r\n\r\n{\"messageId\":\"m1\"}"
	for _, encrypted := range []bool{false, true} {
		for _, hard := range []bool{false, true} {
			for _, answered := range []int{1, 2} {
				t.Run(fmt.Sprintf("tls %v, reset %v, after %d", encrypted, hard, answered), func(t *testing.T) {
					t.Parallel()
					server := newTally()
					listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					acceptEach(t, listener, func(conn net.Conn) {
						wire := conn
						if encrypted {
							wire = tls.Server(conn, certificate.TLS)
						}
						reader := bufio.NewReader(wire)
						for range answered {
							body, ok := readBody(reader)
							if !ok {
								return
							}
							server.add(body)
							if _, err := io.WriteString(wire, created); err != nil {
								return
							}
						}
						if tcp, ok := conn.(*net.TCPConn); ok && hard {
							_ = tcp.SetLinger(0)
						}
					})
					each, base, transport := 100, "http://", wazzup.TransportConfig{}
					if encrypted {
						each = 12 // each connection costs a handshake
						base, transport = "https://", trusting(certificate)
					}
					phases := checkOnce(t, newClient(t, base+listener.Addr().String(), transport), server, each)
					if phases[schema.PhaseAnswered] == 0 {
						t.Errorf("nothing was answered: %v", phases)
					}
				})
			}
		}
	}
}

// TestHTTP2NeverSendsTwice: the server ends streams and connections in the ways
// after which net/http may repeat a request by itself.
func TestHTTP2NeverSendsTwice(t *testing.T) {
	t.Parallel()
	certificate := httptest.NewUnstartedServer(nil)
	certificate.EnableHTTP2 = true
	certificate.StartTLS()
	certificate.Close()
	// Each ends every second stream in its own way, after the whole request.
	ways := map[string]func(f *http2.Framer, stream uint32) error{
		"refused stream": func(f *http2.Framer, stream uint32) error {
			return f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		},
		"protocol error": func(f *http2.Framer, stream uint32) error {
			return f.WriteRSTStream(stream, http2.ErrCodeProtocol)
		},
		"enhance your calm": func(f *http2.Framer, stream uint32) error {
			return f.WriteRSTStream(stream, http2.ErrCodeEnhanceYourCalm)
		},
		"graceful goaway": func(f *http2.Framer, stream uint32) error {
			if err := f.WriteGoAway(stream-1, http2.ErrCodeNo, nil); err != nil {
				return err
			}
			return io.EOF
		},
		"goaway": func(f *http2.Framer, _ uint32) error {
			if err := f.WriteGoAway(0, http2.ErrCodeInternal, nil); err != nil {
				return err
			}
			return io.EOF
		},
		"hang up": func(*http2.Framer, uint32) error { return io.EOF },
	}
	const each = 12 // each lost connection costs a handshake
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newTally()
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			acceptEach(t, listener, func(conn net.Conn) {
				serveHTTP2(tls.Server(conn, certificate.TLS), server, end)
			})
			phases := checkOnce(t, newClient(t, "https://"+listener.Addr().String(), trusting(certificate)), server, each)
			if phases[schema.PhaseAnswered] == 0 || phases[schema.PhaseWritten] == 0 {
				t.Errorf("not both answers and losses: %v", phases)
			}
		})
	}
}

// serveHTTP2 reads requests, answers every other one, and ends the rest.
func serveHTTP2(conn net.Conn, server *tally, end func(*http2.Framer, uint32) error) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	if framer.WriteSettings() != nil {
		return
	}
	var answer bytes.Buffer
	_ = hpack.NewEncoder(&answer).WriteField(hpack.HeaderField{Name: ":status", Value: "201"})
	bodies := make(map[uint32][]byte)
	for n := 0; ; {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			_ = framer.WritePing(true, f.Data)
		case *http2.DataFrame:
			stream := f.StreamID
			bodies[stream] = append(bodies[stream], f.Data()...)
			if !f.StreamEnded() {
				continue
			}
			server.add(bodies[stream])
			delete(bodies, stream)
			n++
			if n%2 == 0 {
				if end(framer, stream) != nil {
					return
				}
				continue
			}
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: answer.Bytes(), EndHeaders: true})
			_ = framer.WriteData(stream, true, []byte(`{"messageId":"m1"}`))
		}
	}
}
