package sender_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wazzup-relay/wazzup-relay/internal/simulator"
	"github.com/wazzup-relay/wazzup-relay/queue"
	"github.com/wazzup-relay/wazzup-relay/schema"
)

// redrives are the records by which the command went on after it had ended dead.
func (s *story) redrives() []storedRecord {
	return s.recordsOf(func(r *storedRecord) bool { return r.Step == queue.StepRedrive })
}

// redrivesInDoubt are those of them that an attempt in doubt came before.
func (s *story) redrivesInDoubt() []storedRecord {
	return s.recordsOf(func(r *storedRecord) bool { return r.Step == queue.StepRedrive && r.Doubted })
}

func (s *story) recordsOf(is func(*storedRecord) bool) (found []storedRecord) {
	for i := range s.records {
		if is(&s.records[i]) {
			found = append(found, s.records[i])
		}
	}
	return found
}

// recordAt is the last record that was stored by a time; nil: there was none.
func (s *story) recordAt(at time.Time) *storedRecord {
	for i := range slices.Backward(s.records) {
		if !s.records[i].stored.After(at) {
			return &s.records[i]
		}
	}
	return nil
}

// claimAt is the last claim that was stored by a time; nil: there was none.
func (s *story) claimAt(at time.Time) *storedRecord {
	for i := range slices.Backward(s.records) {
		if r := &s.records[i]; r.Step == queue.StepClaim && !r.stored.After(at) {
			return r
		}
	}
	return nil
}

// endOfGeneration is the record of a generation's end.
func (s *story) endOfGeneration(generation int) *storedRecord {
	for i := range s.records {
		if r := &s.records[i]; r.Step == queue.StepFinal && r.Generation == generation {
			return r
		}
	}
	return nil
}

// firstSends are the requests of the command before it was redriven.
func (s *story) firstSends() []simulator.Send {
	redrives := s.redrives()
	if len(redrives) == 0 {
		return s.sends
	}
	n := 0
	for n < len(s.sends) && s.sends[n].Time.Before(redrives[0].stored) {
		n++
	}
	return s.sends[:n]
}

// calledAfter reports whether the vendor got a request after a time, unless the
// command was redriven since.
func (s *story) calledAfter(at time.Time) bool {
	return slices.ContainsFunc(s.sends, func(r simulator.Send) bool {
		return r.Time.After(at) && !slices.ContainsFunc(s.redrives(), func(d storedRecord) bool {
			return d.stored.After(at) && !d.stored.After(r.Time)
		})
	})
}

func (s *story) redrivenAfter(at time.Time) bool {
	return slices.ContainsFunc(s.redrives(), func(d storedRecord) bool { return d.stored.After(at) })
}

// byHand reports whether it is a person's word that the command was sent.
func (s *story) byHand() bool {
	return s.final.Evidence != nil && s.final.Evidence.Kind == schema.EvidenceOperator
}

// asked counts the requests about a command that were carried out, and those that
// may have been.
func (j *judge) asked(s *story, is func(*modelRequest) bool) (done, perhaps int) {
	for i := range j.requests {
		q := &j.requests[i]
		switch {
		case q.id != s.eventID() || !is(q):
		case q.ok:
			done++
		case q.unclear:
			perhaps++
		}
	}
	return done, perhaps
}

// letter: a dead letter for each dead, and for no other. It goes when it is dropped
// or redriven, and when a redrive finds its command proven.
func (j *judge) letter(s *story) {
	j.t.Helper()
	letter, kept := j.letters[s.seq]
	done, perhaps := j.asked(s, func(q *modelRequest) bool { return q.name == "dead.drop" })
	switch dead := s.final.State == schema.StateDead && s.carried(); {
	case kept && letter.Generation < s.final.generation:
		j.fault(s, "the letter of generation %d was left behind", letter.Generation)
	case kept && !dead:
		j.fault(s, "ended %s, and a dead letter is kept", s.final.State)
	case kept && done > 0:
		j.fault(s, "its letter was dropped, and is kept")
	case dead && !kept && done+perhaps == 0 && !j.foundProven(s):
		j.fault(s, "ended dead, and its letter is gone")
	}
}

// foundProven reports whether a redrive may have found that the command was proven
// to have been carried out.
func (j *judge) foundProven(s *story) bool {
	proven := s.recordsOf(func(r *storedRecord) bool { return r.Step == queue.StepProof || r.Step == queue.StepStatus })
	return len(proven) > 0 && slices.ContainsFunc(j.requests, func(q modelRequest) bool {
		return q.id == s.eventID() && q.name == "dead.redrive" && q.code == "409"
	})
}

// fates: a dead command of which it is said that it was surely not sent was never
// carried out, and one in doubt was in doubt.
func (j *judge) fates(s *story) {
	j.t.Helper()
	for _, e := range s.ends {
		r := s.endOfGeneration(e.generation)
		if e.State != schema.StateDead || r == nil {
			continue
		}
		doubted := slices.ContainsFunc(s.records, func(d storedRecord) bool { return d.Step == queue.StepUnknown && d.sequence < r.sequence })
		acted := slices.ContainsFunc(s.sends, func(q simulator.Send) bool { return q.Time.Before(r.stored) && mayHaveActed(q) })
		unknown := e.Error.Class == schema.ClassUnknown || r.Doubted
		if unknown && !doubted || !unknown && acted {
			j.fault(s, "dead with class %s, doubted %v; in doubt before %v, acted %v", e.Error.Class, r.Doubted, doubted, acted)
		}
	}
}

// redriven: each redrive was asked for, that of a command in doubt by somebody who
// included those, and each that was answered took place.
func (j *judge) redriven(s *story) {
	j.t.Helper()
	if !s.carried() {
		return
	}
	all, inDoubt := len(s.redrives()), len(s.redrivesInDoubt())
	done, perhaps := j.asked(s, func(q *modelRequest) bool { return q.name == "dead.redrive" })
	if all < done || all > done+perhaps {
		j.fault(s, "redriven %d times, asked for %d times and perhaps %d more", all, done, perhaps)
	}
	done, perhaps = j.asked(s, func(q *modelRequest) bool { return q.name == "dead.redrive" && q.unknown })
	if inDoubt > done+perhaps {
		j.fault(s, "redriven %d times in doubt, asked for %d times and perhaps %d more", inDoubt, done, perhaps)
	}
}

// evidenceFirst: what a redriven command's own echo had proven before it was
// redriven is not called again. Of equal messages an echo may prove nothing.
func (j *judge) evidenceFirst(s *story) {
	j.t.Helper()
	if strings.HasPrefix(s.content(), "good") {
		return
	}
	for _, d := range s.redrivesInDoubt() {
		proven := slices.IndexFunc(s.sends, func(r simulator.Send) bool {
			echo := j.echoes[r.MessageID]
			return !echo.IsZero() && echo.Before(d.stored)
		})
		if proven < 0 {
			continue
		}
		if last := s.sends[len(s.sends)-1]; last.Time.After(d.stored) {
			j.fault(s, "request %d was made although the echo of %s was stored before the redrive", last.Seq, s.sends[proven].MessageID)
		}
	}
}

// pauses: between the answer to lane.pause and the next lane.resume nothing of the
// lane is called but what was claimed before.
func (j *judge) pauses(all []*story) {
	j.t.Helper()
	for i, q := range j.requests {
		if q.name != "lane.pause" || !q.ok {
			continue
		}
		for _, class := range []schema.Kind{schema.KindSend, schema.KindBulk} {
			if q.class != "" && q.class != string(class) {
				continue
			}
			until := j.resumed(j.requests[i+1:], q.channel, class)
			for _, s := range all {
				if s.carried() && s.kind == class && s.channel == q.channel {
					j.paused(s, q.at, until)
				}
			}
		}
	}
}

// resumed is when it was asked, first of these requests, that a lane go on.
func (j *judge) resumed(requests []modelRequest, channel string, class schema.Kind) time.Time {
	for _, q := range requests {
		if q.name == "lane.resume" && q.channel == channel && (q.class == "" || q.class == string(class)) {
			return q.asked
		}
	}
	return time.Now()
}

func (j *judge) paused(s *story, from, until time.Time) {
	j.t.Helper()
	for _, r := range s.sends {
		if !r.Time.After(from) || !r.Time.Before(until) {
			continue
		}
		if claim := s.claimAt(r.Time); claim == nil || claim.stored.After(from) {
			j.fault(s, "request %d was made while its lane was paused, since %s", r.Seq, from.Format("05.000000"))
		}
	}
}

// syncEnd: the end of a sync command. Its requests may be repeated.
func (j *judge) syncEnd(s *story) {
	j.t.Helper()
	switch e := s.final; e.State {
	case schema.StateDone:
	case schema.StateRejected: // a contact that is not there cannot be deleted
		if s.kind != schema.KindContactsDelete {
			j.fault(s, "rejected: %+v", e.Error)
		}
	case schema.StateDead:
		j.reason(s, e)
	default:
		j.fault(s, "ended %s", e.State)
	}
}

// contacts: the vendor has each contact as the last of its commands left it, since
// they are carried out in the order in which they were stored.
func (j *judge) contacts(all []*story) {
	j.t.Helper()
	last, unclear := make(map[string]*story), make(map[string]bool)
	for _, s := range all {
		if s.contact == "" {
			continue
		}
		last[s.contact] = s
		// What was redriven took another place, and what is dead may have been carried out.
		unclear[s.contact] = unclear[s.contact] || s.final == nil || s.final.State == schema.StateDead || len(s.redrives()) > 0
	}
	for id, s := range last {
		if unclear[id] {
			continue
		}
		want := s.name
		if s.kind == schema.KindContactsDelete {
			want = ""
		}
		if got := j.contact(id); got != want {
			j.fault(s, "its contact is named %q, want %q", got, want)
		}
	}
}

// contact is the name of a contact as the vendor knows it; "" = it is not there.
func (j *judge) contact(id string) string {
	j.t.Helper()
	r, err := http.NewRequestWithContext(j.t.Context(), http.MethodGet, j.sim.URL()+"/v2/contacts/"+id, http.NoBody)
	if err != nil {
		j.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Basic key")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		j.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var c struct{ Name string }
	if answer.StatusCode == http.StatusOK {
		err = json.NewDecoder(answer.Body).Decode(&c)
	}
	if err != nil || answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNotFound {
		j.t.Fatalf("contact %s: %d %v", id, answer.StatusCode, err)
	}
	return c.Name
}
