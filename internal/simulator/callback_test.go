package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
)

const hookURL = "http://receiver.example/webhooks/main/secret"

// bubble is a simulator in a synctest bubble, whose webhooks go to a receiver
// without a network.
type bubble struct {
	*simulator.Server
	t     *testing.T
	hooks *receiver
	began time.Time
}

func inBubble(t *testing.T, cfg simulator.Config, f func(*bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, hooks: &receiver{}, began: time.Now()}
		cfg.Transport = b.hooks
		cfg.WebhookURL = hookURL
		server, err := simulator.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		b.Server = server
		f(b)
	})
}

func (b *bubble) call(method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(b.t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Basic "+testKey)
	r.Header.Set("Content-Type", "application/json")
	b.Handler().ServeHTTP(w, r)
	return w
}

func (b *bubble) send(body string) (messageID string) {
	b.t.Helper()
	w := b.call(http.MethodPost, "/v2/send_message", body)
	var answer struct{ MessageID string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusCreated {
		b.t.Fatalf("send_message: %d %s", w.Code, w.Body)
	}
	return answer.MessageID
}

// settle lets time pass until every webhook is delivered or given up.
func (b *bubble) settle() {
	b.t.Helper()
	if err := b.Wait(b.t.Context(), (*simulator.View).Idle); err != nil {
		b.t.Fatal(err)
	}
}

// offsets are the times of the webhooks since the bubble began.
func (b *bubble) offsets() []time.Duration {
	b.hooks.mu.Lock()
	defer b.hooks.mu.Unlock()
	offsets := make([]time.Duration, len(b.hooks.times))
	for i, at := range b.hooks.times {
		offsets[i] = at.Sub(b.began)
	}
	return offsets
}

func TestEchoAndStatuses(t *testing.T) {
	t.Parallel()
	cfg := simulator.Config{EchoDelay: 150 * time.Millisecond, StatusDelay: 100 * time.Millisecond}
	inBubble(t, cfg, func(b *bubble) {
		id := b.send(whatsApp("hello"))
		b.settle()

		bodies := b.hooks.parsed(b.t)
		if got, want := b.hooks.events(b.t), []string{"1", "echo", "2", "3"}; !slices.Equal(got, want) {
			b.t.Fatalf("events %v, want %v", got, want)
		}
		echo := bodies[1].Messages[0]
		if echo.MessageID != id || echo.ChannelID != simulator.ChannelWhatsApp || echo.ChatType != "whatsapp" || echo.ChatID != "79998887766" ||
			echo.Text != "hello" || echo.Type != 1 || echo.Status != 1 || echo.AuthorType != 9 || echo.DateTime != b.began.UnixMilli() {
			b.t.Errorf("echo %+v", echo)
		}
		for _, i := range []int{0, 2, 3} {
			if got := bodies[i].Statuses[0].MessageID; got != id {
				b.t.Errorf("status %d is of message %s, want %s", i, got, id)
			}
		}
		ms := time.Millisecond
		if got, want := b.offsets(), []time.Duration{100 * ms, 150 * ms, 200 * ms, 300 * ms}; !slices.Equal(got, want) {
			b.t.Errorf("times %v, want %v", got, want)
		}
	})
}

func TestEchoOfContent(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]int{
		"https://example.com/a.PNG":        2,
		"https://example.com/a.webp?x=.ru": 2,
		"https://example.com/a.ogg":        3,
		"https://example.com/a.mp4":        4,
		"https://example.com/a.pdf":        5,
		"https://example.com/a.d/download": 5,
	} {
		inBubble(t, simulator.Config{NoStatuses: true}, func(b *bubble) {
			b.send(`{"channelId":"` + simulator.ChannelWhatsApp + `","chatType":"whatsapp","chatId":"79998887766","content":"` + link + `"}`)
			b.settle()
			echo := b.hooks.parsed(b.t)[0].Messages[0]
			if echo.Type != want || echo.Content != link || echo.Text != "" {
				b.t.Errorf("%s: echo %+v, want type %d", link, echo, want)
			}
		})
	}
	inBubble(t, simulator.Config{NoStatuses: true, StoreURL: "https://store.example/"}, func(b *bubble) {
		id := b.send(`{"channelId":"` + simulator.ChannelWhatsApp + `","chatType":"whatsapp","chatId":"79998887766","content":"https://example.com/a.png"}`)
		b.settle()
		if echo := b.hooks.parsed(b.t)[0].Messages[0]; echo.Content != "https://store.example/"+id+".png" || echo.Type != 2 {
			b.t.Errorf("echo %+v, want the vendor's own link", echo)
		}
	})
}

func TestWhatIsCalledBack(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	tests := []struct {
		name string
		cfg  simulator.Config
		rule simulator.Rule
		want []string
	}{
		{"by default", simulator.Config{}, simulator.Rule{}, []string{"echo", "1", "2", "3"}},
		{"no echo", simulator.Config{NoEcho: true}, simulator.Rule{}, []string{"1", "2", "3"}},
		{"no statuses", simulator.Config{NoStatuses: true}, simulator.Rule{}, []string{"echo"}},
		{"own statuses", simulator.Config{Statuses: []int{0, 1, 13}}, simulator.Rule{}, []string{"echo", "0", "1", "13"}},
		{"statuses as text", simulator.Config{StatusText: true}, simulator.Rule{}, []string{"echo", `"1"`, `"2"`, `"3"`}},
		{"rule's statuses", simulator.Config{}, simulator.Rule{Statuses: &[]int{66}}, []string{"echo", "66"}},
		{"rule without statuses", simulator.Config{}, simulator.Rule{Statuses: &[]int{}}, []string{"echo"}},
		{"rule without echo", simulator.Config{}, simulator.Rule{Echo: &no}, []string{"1", "2", "3"}},
		{"rule with echo", simulator.Config{NoEcho: true, NoStatuses: true}, simulator.Rule{Echo: &yes}, []string{"echo"}},
		{"refused", simulator.Config{}, simulator.Rule{Status: 400}, nil},
		{"refused although accepted", simulator.Config{}, simulator.Rule{Status: 400, Accept: &yes}, []string{"echo", "1", "2", "3"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, tt.cfg, func(b *bubble) {
				if err := b.AddRule(tt.rule); err != nil {
					b.t.Fatal(err)
				}
				b.call(http.MethodPost, "/v2/send_message", whatsApp("a"))
				b.settle()
				if got := b.hooks.events(b.t); !slices.Equal(got, tt.want) {
					b.t.Errorf("events %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestJitterKeepsTheOrderOfStatuses(t *testing.T) {
	t.Parallel()
	cfg := simulator.Config{Seed: 7, NoEcho: true, StatusDelay: 10 * time.Millisecond, Jitter: 500 * time.Millisecond}
	var first []time.Duration
	for range 2 {
		inBubble(t, cfg, func(b *bubble) {
			b.send(whatsApp("a"))
			b.settle()
			if got := b.hooks.events(b.t); !slices.Equal(got, []string{"1", "2", "3"}) {
				b.t.Errorf("events %v", got)
			}
			got := b.offsets()
			if got[0] == 10*time.Millisecond && got[1] == 20*time.Millisecond {
				b.t.Errorf("times %v show no jitter", got)
			}
			if first == nil {
				first = got
			} else if !slices.Equal(first, got) {
				b.t.Errorf("the same seed gave %v and %v", first, got)
			}
		})
	}
}

func TestShuffle(t *testing.T) {
	t.Parallel()
	var runs [2][]string
	for i := range runs {
		inBubble(t, simulator.Config{Seed: 3, Shuffle: true, EchoDelay: 50 * time.Millisecond, StatusDelay: 20 * time.Millisecond}, func(b *bubble) {
			for range 20 {
				b.send(whatsApp("a"))
				b.settle()
			}
			runs[i] = b.hooks.events(b.t)
		})
	}
	if !slices.Equal(runs[0], runs[1]) {
		t.Errorf("the same seed gave %v and %v", runs[0], runs[1])
	}
	if len(runs[0]) != 80 {
		t.Fatalf("%d events, want 80", len(runs[0]))
	}
	turned := 0
	for message := range slices.Chunk(runs[0], 4) {
		if slices.Index(message, "3") < slices.Index(message, "1") {
			turned++
		}
		slices.Sort(message)
		if !slices.Equal(message, []string{"1", "2", "3", "echo"}) {
			t.Errorf("one message's events are %v", message)
		}
	}
	if turned == 0 {
		t.Error("in 20 messages no read came before its sent")
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		mixed bool
		size  int
		want  []string // messages and statuses in each webhook
	}{
		{"one kind each", false, 0, []string{"5m", "5s"}},
		{"mixed", true, 0, []string{"5m5s"}},
		{"small", false, 3, []string{"3m", "3s", "2m", "2s"}},
		{"small and mixed", true, 4, []string{"2m2s", "2m2s", "1m1s"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := simulator.Config{Mixed: tt.mixed, BatchSize: tt.size, BatchWindow: time.Second, Statuses: []int{1}}
			inBubble(t, cfg, func(b *bubble) {
				for range 5 {
					b.send(whatsApp("a"))
				}
				b.settle()
				var got []string
				for _, body := range b.hooks.parsed(b.t) {
					text := ""
					if n := len(body.Messages); n > 0 {
						text += fmt.Sprintf("%dm", n)
					}
					if n := len(body.Statuses); n > 0 {
						text += fmt.Sprintf("%ds", n)
					}
					got = append(got, text)
				}
				if !slices.Equal(got, tt.want) {
					b.t.Errorf("webhooks %v, want %v", got, tt.want)
				}
				if at := b.offsets()[0]; at != time.Second {
					b.t.Errorf("the first leaves after %v, want the end of the window", at)
				}
			})
		})
	}
}

func TestAChannelListTravelsAlone(t *testing.T) {
	t.Parallel()
	inBubble(t, simulator.Config{Mixed: true, BatchWindow: time.Second, NoStatuses: true}, func(b *bubble) {
		b.send(whatsApp("a"))
		if err := b.RemoveChannel(simulator.ChannelWhatsApp); err != nil {
			b.t.Fatal(err)
		}
		b.send(textTo(simulator.ChannelWhatsApp2, "whatsapp", "79998887766", "b"))
		b.settle()
		bodies := b.hooks.parsed(b.t)
		if len(bodies) != 3 || len(bodies[0].Messages) != 1 || len(bodies[1].ChannelsList) != 3 || len(bodies[2].Messages) != 1 {
			b.t.Errorf("webhooks %q", b.hooks.all())
		}
	})
}

func TestRetriesOfWebhooks(t *testing.T) {
	t.Parallel()
	s := time.Second
	tests := []struct {
		name    string
		cfg     simulator.Config
		answers []int // the last one from then on; 0 = nobody there
		times   []time.Duration
		want    simulator.View
	}{
		{"taken at once", simulator.Config{}, []int{200}, []time.Duration{0}, simulator.View{Delivered: 1, Items: 1}},
		{"taken in the end", simulator.Config{}, []int{500, 0, 302, 200}, []time.Duration{0, s, 3 * s, 7 * s}, simulator.View{Delivered: 1, Items: 1, Failed: 3}},
		{"given up", simulator.Config{}, []int{503}, []time.Duration{0, s, 3 * s, 7 * s}, simulator.View{Failed: 4, GivenUp: 1}},
		{"201 is not 200", simulator.Config{Retries: 1, RetryDelay: 5 * s}, []int{201}, []time.Duration{0, 5 * s}, simulator.View{Failed: 2, GivenUp: 1}},
		{"no retries", simulator.Config{Retries: -1}, []int{500}, []time.Duration{0}, simulator.View{Failed: 1, GivenUp: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.NoStatuses = true
			inBubble(t, tt.cfg, func(b *bubble) {
				b.hooks.answer = func(n int) int { return tt.answers[min(n, len(tt.answers))-1] }
				b.send(whatsApp("a"))
				b.settle()
				if got := b.offsets(); !slices.Equal(got, tt.times) {
					b.t.Errorf("attempts at %v, want %v", got, tt.times)
				}
				bodies := b.hooks.all()
				if len(slices.Compact(bodies)) != 1 {
					b.t.Errorf("a repeated webhook changed: %q", bodies)
				}
				got := b.View()
				want := tt.want
				want.Requests, want.Finished, want.Sends, want.Accepted = 1, 1, 1, 1
				if got != want {
					b.t.Errorf("counters %+v, want %+v", got, want)
				}
				deliveries := b.Deliveries()
				if len(deliveries) != len(tt.times) {
					b.t.Fatalf("%d deliveries recorded, want %d", len(deliveries), len(tt.times))
				}
				for i, d := range deliveries {
					status := tt.answers[min(i+1, len(tt.answers))-1]
					if d.Seq != i+1 || d.Attempt != i+1 || d.Status != status || (d.Error != "") != (status == 0) ||
						d.Items["messages"] != 1 || d.GivenUp != (want.GivenUp == 1 && i == len(deliveries)-1) {
						b.t.Errorf("delivery %d: %+v", i, d)
					}
					if strings.Contains(d.Error, "secret") {
						b.t.Errorf("the error tells the receiver's secret: %s", d.Error)
					}
				}
			})
		})
	}
}

func TestAFailedWebhookDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	inBubble(t, simulator.Config{NoStatuses: true}, func(b *bubble) {
		b.hooks.answer = func(n int) int { return []int{500, 200, 200}[n-1] }
		b.send(whatsApp("first"))
		synctest.Wait()
		b.send(whatsApp("second"))
		b.settle()
		var texts []string
		for _, body := range b.hooks.parsed(b.t) {
			texts = append(texts, body.Messages[0].Text)
		}
		if want := []string{"first", "second", "first"}; !slices.Equal(texts, want) {
			b.t.Errorf("webhooks %v, want %v", texts, want)
		}
	})
}

func TestInbound(t *testing.T) {
	t.Parallel()
	missed := 21
	tests := []struct {
		name string
		in   simulator.Inbound
		kind int // of the message
	}{
		{"text", simulator.Inbound{ChannelID: simulator.ChannelWhatsApp, ChatID: "79998887766", Text: "hi", AuthorName: "Anna"}, 1},
		{"picture", simulator.Inbound{ChannelID: simulator.ChannelTelegram, ChatID: "1", ChatType: "telegram", Content: "https://example.com/a.jpg"}, 2},
		{"missed call", simulator.Inbound{ChannelID: simulator.ChannelWhatsApp, ChatID: "79998887766", Type: &missed}, 21},
		{"group", simulator.Inbound{ChannelID: simulator.ChannelWhatsApp, ChatID: "79124698489-1611143663", ChatType: "whatsgroup", Text: "hi"}, 1},
		{"old message", simulator.Inbound{ChannelID: simulator.ChannelWhatsApp, ChatID: "79998887766", Text: "hi", DateTime: 1603977171000, MessageID: "10d90130-38f6-421c-ada9-951f82884056"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, simulator.Config{}, func(b *bubble) {
				id, err := b.Inbound(tt.in)
				if err != nil {
					b.t.Fatal(err)
				}
				b.settle()
				m := b.hooks.parsed(b.t)[0].Messages[0]
				at := tt.in.DateTime
				if at == 0 {
					at = b.began.UnixMilli()
				}
				if m.MessageID != id || m.ChannelID != tt.in.ChannelID || m.ChatID != tt.in.ChatID || m.ChatType == "" ||
					m.Text != tt.in.Text || m.Content != tt.in.Content || m.AuthorName != tt.in.AuthorName ||
					m.Type != tt.kind || m.Status != 99 || m.AuthorType != 99 || m.DateTime != at {
					b.t.Errorf("webhook %+v", m)
				}
				if tt.in.MessageID != "" && id != tt.in.MessageID {
					b.t.Errorf("message id %s, want the given one", id)
				}
				// It can be quoted.
				b.send(`{"channelId":"` + simulator.ChannelWhatsApp + `","chatType":"whatsapp","chatId":"79998887766","text":"re","refMessageId":"` + id + `"}`)
			})
		})
	}
}

func TestChannelChanges(t *testing.T) {
	t.Parallel()
	const added = "c0000000-0000-4000-8000-000000000001"
	inBubble(t, simulator.Config{}, func(b *bubble) {
		step := func(err error) hookBody {
			b.t.Helper()
			if err != nil {
				b.t.Fatal(err)
			}
			b.settle()
			bodies := b.hooks.parsed(b.t)
			last := bodies[len(bodies)-1]
			for _, body := range bodies[:len(bodies)-1] {
				last.Channels = append(last.Channels, body.Channels...)
			}
			b.hooks.mu.Lock()
			b.hooks.bodies = nil
			b.hooks.mu.Unlock()
			return last
		}
		got := step(b.SetChannel(simulator.Channel{ChannelID: simulator.ChannelWhatsApp, State: simulator.StateNotEnoughMoney}))
		changed := simulator.DefaultChannels()[0]
		changed.State = simulator.StateNotEnoughMoney
		if !slices.Equal(got.Channels, []simulator.Channel{changed}) || got.ChannelsList != nil {
			b.t.Errorf("a change calls %+v", got)
		}
		if w := b.call(http.MethodPost, "/v2/send_message", whatsApp("a")); !strings.Contains(w.Body.String(), "CHANNEL_NO_MONEY") {
			b.t.Errorf("the channel still sends: %d %s", w.Code, w.Body)
		}
		got = step(b.SetChannel(simulator.Channel{ChannelID: added, Transport: "vk", PlainID: "club1"}))
		if len(got.ChannelsList) != 5 || len(got.Channels) != 1 || got.Channels[0].State != simulator.StateActive {
			b.t.Errorf("a new channel calls %+v", got)
		}
		got = step(b.RemoveChannel(added))
		if len(got.ChannelsList) != 4 || got.Channels != nil {
			b.t.Errorf("a removal calls %+v", got)
		}
		if !slices.Equal(got.ChannelsList, b.Channels()) {
			b.t.Errorf("the list called is %+v, the API's %+v", got.ChannelsList, b.Channels())
		}
	})
}

func TestTuneAndReset(t *testing.T) {
	t.Parallel()
	inBubble(t, simulator.Config{Statuses: []int{1}}, func(b *bubble) {
		hour := simulator.Duration(time.Hour)
		if err := b.Tune(simulator.Tuning{Echo: new(false), Statuses: &[]int{2, 3}, StatusDelay: &hour, Rate: &simulator.Rate{Requests: 1, Window: time.Hour}}); err != nil {
			b.t.Fatal(err)
		}
		if err := b.AddRule(simulator.Rule{Match: simulator.Match{Path: "/v2/users"}, Status: 418}); err != nil {
			b.t.Fatal(err)
		}
		if err := b.SetChannel(simulator.Channel{ChannelID: simulator.ChannelWhatsApp2, State: "qr"}); err != nil {
			b.t.Fatal(err)
		}
		b.settle()
		id := b.send(whatsApp("a"))
		if w := b.call(http.MethodGet, "/v2/channels", ""); w.Code != http.StatusTooManyRequests {
			b.t.Errorf("the tuned rate lets %d through", w.Code)
		}
		if v := b.View(); v.Pending != 2 {
			b.t.Errorf("%d webhook items pending, want the two statuses", v.Pending)
		}

		b.Reset()
		if v := b.View(); v != (simulator.View{}) {
			b.t.Errorf("counters after a reset: %+v", v)
		}
		if len(b.Requests()) != 0 || len(b.Rules()) != 0 || !slices.Equal(b.Channels(), simulator.DefaultChannels()) {
			b.t.Error("a reset left requests, rules or channels")
		}
		if b.WebhookURL() != hookURL {
			b.t.Error("a reset forgot the webhook URL")
		}
		if w := b.call(http.MethodPost, "/v2/send_message", strings.Replace(whatsApp("a"), `"text"`, `"refMessageId":"`+id+`","text"`, 1)); !strings.Contains(w.Body.String(), "REFERENCE_MESSAGE_NOT_FOUND") {
			b.t.Errorf("a message from before the reset can be quoted: %s", w.Body)
		}
		before := len(b.hooks.events(b.t))
		if second := b.send(whatsApp("b")); second == id {
			b.t.Error("a message id came again after the reset")
		}
		b.settle()
		if got := b.hooks.events(b.t)[before:]; !slices.Equal(got, []string{"echo", "1"}) {
			b.t.Errorf("events after a reset: %v", got)
		}
	})
}

func TestSwitchingWebhooksOffForgetsWhatWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, simulator.Config{EchoDelay: time.Minute, StatusDelay: time.Minute}, func(b *bubble) {
		b.send(whatsApp("a"))
		if err := b.SetWebhookURL(""); err != nil {
			b.t.Fatal(err)
		}
		b.settle()
		b.send(whatsApp("b"))
		b.settle()
		if got := b.hooks.all(); len(got) != 0 {
			b.t.Errorf("webhooks %q with none registered", got)
		}
		if err := b.SetWebhookURL(hookURL); err != nil {
			b.t.Fatal(err)
		}
		b.send(whatsApp("c"))
		b.settle()
		if got := b.hooks.parsed(b.t); len(got) != 4 || b.offsets()[0] != time.Minute {
			b.t.Errorf("%d webhooks, the first after %v", len(got), b.offsets())
		}
	})
}

func TestWebhooksInParallel(t *testing.T) {
	t.Parallel()
	hooks := &receiver{}
	var arrived atomic.Int32
	both := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if arrived.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
			hooks.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	s := start(t, simulator.Config{WebhookURL: server.URL, Parallel: 2, BatchSize: 1, NoStatuses: true})
	messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("a")))
	messageID(t, s.do(http.MethodPost, "/v2/send_message", whatsApp("b")))
	s.wait(func(v *simulator.View) bool { return v.Delivered == 2 && v.Idle() })
}

// Many chats at once: every message has its echo and its statuses exactly once,
// and a receiver that answers 200 hears of each chat in order.
func TestManySends(t *testing.T) {
	t.Parallel()
	const chats, each = 20, 50
	hooks := &receiver{}
	s := start(t, simulator.Config{WebhookURL: serveReceiver(t, hooks)})
	var senders sync.WaitGroup
	for chat := range chats {
		senders.Go(func() {
			for n := range each {
				r, err := s.try(http.MethodPost, "/v2/send_message", textTo(simulator.ChannelWhatsApp, "whatsapp", fmt.Sprintf("7999000%04d", chat), strconv.Itoa(n)))
				if err != nil || r.status != http.StatusCreated {
					t.Errorf("chat %d, message %d: %d %v", chat, n, r.status, err)
				}
			}
		})
	}
	senders.Wait()
	s.wait(func(v *simulator.View) bool { return v.Idle() && v.Items == chats*each*4 })

	texts := make(map[string][]string)    // by chat
	statuses := make(map[string][]string) // by message
	for _, body := range hooks.parsed(t) {
		for _, m := range body.Messages {
			texts[m.ChatID] = append(texts[m.ChatID], m.Text)
		}
		for _, st := range body.Statuses {
			statuses[st.MessageID] = append(statuses[st.MessageID], string(st.Status))
		}
	}
	want := make([]string, each)
	for n := range want {
		want[n] = strconv.Itoa(n)
	}
	if len(texts) != chats {
		t.Errorf("echoes of %d chats, want %d", len(texts), chats)
	}
	for chat, got := range texts {
		if !slices.Equal(got, want) {
			t.Errorf("chat %s: echoes %v", chat, got)
		}
	}
	sends := s.Sends()
	if len(sends) != chats*each || len(statuses) != chats*each {
		t.Errorf("%d sends and %d messages with statuses, want %d of each", len(sends), len(statuses), chats*each)
	}
	for i := range sends {
		if got := statuses[sends[i].MessageID]; !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Errorf("message %d: statuses %v", i, got)
		}
	}
}
