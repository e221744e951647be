package queue

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// Command is one command to publish, of any kind.
type Command struct {
	Kind    schema.Kind
	Message *schema.SendCommand // of KindSend and KindBulk
	Sync    *schema.SyncCommand // of every other kind
}

// Validate checks the command as the worker will. The error is a
// *[schema.InvalidCommandError], which names every fault by its field.
func (c Command) Validate() error {
	switch {
	case c.Kind.IsMessage() && c.Message != nil && c.Sync == nil:
		return c.Message.Validate()
	case !c.Kind.IsMessage() && c.Sync != nil && c.Message == nil:
		return c.Sync.Validate(c.Kind)
	}
	return &schema.InvalidCommandError{Faults: []schema.Fault{schema.NewFault("", schema.FaultUnknownKind)}}
}

// Publish checks one command and stores it: a *[schema.InvalidCommandError] names
// every broken rule before anything is published. Durability and errors are those
// of [Publisher.Send].
//
// A command without an id gets one, which the receipt tells. To publish such a
// command again is another command all the same, so that a producer that may crash
// in between gives ids of its own.
func (p *Publisher) Publish(ctx context.Context, c Command, opts ...PublishOption) (Receipt, error) {
	o, err := p.prepare(ctx, c, options(opts))
	if err != nil {
		return Receipt{}, fmt.Errorf("publish command: %w", err)
	}
	return p.once(ctx, o)
}

// SendMessage publishes a message of the transactional class: codes, replies.
func (p *Publisher) SendMessage(ctx context.Context, c *schema.SendCommand, opts ...PublishOption) (Receipt, error) {
	return p.Publish(ctx, Command{Kind: schema.KindSend, Message: c}, opts...)
}

// SendBulk publishes a message of the bulk class, which never delays the other.
func (p *Publisher) SendBulk(ctx context.Context, c *schema.SendCommand, opts ...PublishOption) (Receipt, error) {
	return p.Publish(ctx, Command{Kind: schema.KindBulk, Message: c}, opts...)
}

// Upsert adds or changes users, contacts or deals.
func (p *Publisher) Upsert(ctx context.Context, e schema.Entity, c *schema.SyncCommand, opts ...PublishOption) (Receipt, error) {
	return p.Publish(ctx, Command{Kind: schema.SyncKind(e, schema.VerbUpsert), Sync: c}, opts...)
}

// ReplaceUsers makes the command's items the whole list of users. The vendor
// replaces no other list.
func (p *Publisher) ReplaceUsers(ctx context.Context, c *schema.SyncCommand, opts ...PublishOption) (Receipt, error) {
	return p.Publish(ctx, Command{Kind: schema.KindUsersReplace, Sync: c}, opts...)
}

// Delete deletes users, contacts or deals; the command's items are their ids.
func (p *Publisher) Delete(ctx context.Context, e schema.Entity, c *schema.SyncCommand, opts ...PublishOption) (Receipt, error) {
	return p.Publish(ctx, Command{Kind: schema.SyncKind(e, schema.VerbDelete), Sync: c}, opts...)
}

// checkMsgID checks an id that a header carries, which changes white space at its ends
// and every line break: the command would have another id than its receipt says.
func checkMsgID(id string) []schema.Fault {
	if strings.TrimSpace(id) != id || strings.ContainsAny(id, "\r\n") {
		return []schema.Fault{schema.NewFault(schema.HeaderMsgID, schema.FaultNotAllowed)}
	}
	return schema.CheckMsgID(id)
}

// outgoing is a command that was checked and is ready to be published, any number
// of times under the same id.
type outgoing struct {
	id   string
	msg  *nats.Msg
	line line
}

// line is what keeps its order: a chat in its class, or the commands for one kind
// of entity.
type line struct {
	kind                        schema.Kind
	entity                      schema.Entity
	channelID, chatType, chatID string
}

func (p *Publisher) prepare(ctx context.Context, c Command, o publishing) (*outgoing, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	out := new(outgoing)
	var subject string
	var body []byte
	var err error
	if m := c.Message; m != nil {
		out.id, out.line = m.ID, line{kind: c.Kind, channelID: m.ChannelID, chatType: m.ChatType, chatID: m.ChatID}
		subject = schema.SendSubject(p.account, c.Kind, m.ChannelID)
		body, err = m.AppendJSON(nil)
	} else {
		entity, verb, _ := c.Kind.Sync()
		out.id, out.line = c.Sync.ID, line{entity: entity}
		subject = schema.SyncSubject(p.account, entity, verb)
		body, err = c.Sync.AppendJSON(nil)
	}
	if err != nil {
		return nil, err
	}
	if out.id != "" {
		o.id = "" // the body's wins, and no window of the stream shall swallow a repeat
	} else {
		if o.id == "" {
			o.id = nuid.Next()
		}
		if faults := checkMsgID(o.id); len(faults) > 0 {
			return nil, &schema.InvalidCommandError{Faults: faults}
		}
		out.id = o.id
	}
	out.msg = p.message(ctx, subject, body, o)
	return out, nil
}
