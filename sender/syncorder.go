package sender

import (
	"slices"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// entityOrder keeps the order of a sync lane's commands in hand. Those about one
// entity go one after another, in the order in which they arrived, which is the one
// in which they were stored; those about different ones do not wait for each other.
// A replace is about all entities: what came before it has ended before it begins,
// and what came after it waits for its end.
//
// A lane holds a bounded number of commands, so that the order does too. It is
// owned by the owner's mutex.
type entityOrder struct {
	lines   map[string][]*command // by entity id: the commands about it, the one that may go first
	running int                   // commands in the lines
	barrier *command              // the replace that has its turn when the lines are empty; nil: there is none
	behind  []*command            // what came after the barrier
	bytes   int                   // of the bodies of all commands in the order
}

// enter takes in a command, behind those that are there, and reports whether it may
// go at once.
func (e *entityOrder) enter(c *command) (free bool) {
	e.bytes += len(c.delivery.Data)
	return e.join(c)
}

func (e *entityOrder) join(c *command) (free bool) {
	switch {
	case e.barrier != nil:
		e.behind = append(e.behind, c)
		return false
	case c.body.Sync.Verb == schema.VerbReplace:
		e.barrier = c
		return e.running == 0
	}
	if e.lines == nil {
		e.lines = make(map[string][]*command)
	}
	e.running++
	for _, id := range c.work.ids {
		if len(e.lines[id]) > 0 {
			c.work.ahead++
		}
		e.lines[id] = append(e.lines[id], c)
	}
	return c.work.ahead == 0
}

// free reports whether nothing has to end before a command that is in the order.
func (e *entityOrder) free(c *command) bool {
	switch {
	case c == e.barrier:
		return e.running == 0
	case slices.Contains(e.behind, c):
		return false
	}
	return c.work.ahead == 0
}

// position is where a command stands among those of the entity that it waits for the
// longest, 1 being the next.
func (e *entityOrder) position(c *command) int {
	if at := slices.Index(e.behind, c); at >= 0 {
		return at + 2 + e.running
	}
	if c == e.barrier {
		return e.running + 1
	}
	position := 1
	for _, id := range c.work.ids {
		position = max(position, slices.Index(e.lines[id], c)+1)
	}
	return position
}

// leave lets go of a command that has ended, and returns those that may go now.
func (e *entityOrder) leave(c *command) (freed []*command) {
	e.bytes -= len(c.delivery.Data)
	if c == e.barrier {
		e.barrier = nil
		waiting := e.behind
		e.behind = nil
		for _, next := range waiting {
			if e.join(next) {
				freed = append(freed, next)
			}
		}
		return freed
	}
	e.running--
	for _, id := range c.work.ids {
		if next := e.drop(id, c); next != nil {
			freed = append(freed, next)
		}
	}
	if e.running == 0 && e.barrier != nil {
		freed = append(freed, e.barrier)
	}
	return freed
}

// drop takes a command out of one line, and returns the next if nothing else is
// ahead of that.
func (e *entityOrder) drop(id string, c *command) *command {
	line := e.lines[id]
	at := slices.Index(line, c)
	line = slices.Delete(line, at, at+1)
	if len(line) == 0 {
		delete(e.lines, id)
		return nil
	}
	e.lines[id] = line
	if at > 0 {
		return nil
	}
	next := line[0]
	if next.work.ahead--; next.work.ahead > 0 {
		return nil
	}
	return next
}

// held is how many commands are in the order.
func (e *entityOrder) held() int {
	n := e.running + len(e.behind)
	if e.barrier != nil {
		n++
	}
	return n
}

// directlyBefore is who comes right before a command in the lines of its entities.
func (e *entityOrder) directlyBefore(c *command) []*command {
	var before []*command
	for _, id := range c.work.ids {
		line := e.lines[id]
		if at := slices.Index(line, c); at > 0 && !slices.Contains(before, line[at-1]) {
			before = append(before, line[at-1])
		}
	}
	return before
}

// behindOf is who comes right behind a command in the lines of its entities.
func (e *entityOrder) behindOf(c *command) []*command {
	var behind []*command
	for _, id := range c.work.ids {
		line := e.lines[id]
		if at := slices.Index(line, c); at >= 0 && at+1 < len(line) && !slices.Contains(behind, line[at+1]) {
			behind = append(behind, line[at+1])
		}
	}
	return behind
}
