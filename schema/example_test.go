package schema_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/wazzup-relay/wazzup-relay/schema"
)

// A producer builds a command, checks it and publishes it with any NATS client.
func ExampleSendCommand() {
	command := schema.NewText("order-1042-shipped", "3376e1c3-26a6-478b-b964-72bf01cc22cb",
		schema.ChatWhatsApp, "79998887766", "Your order 1042 has been shipped.")
	command.ExpireAt = time.Date(2026, 11, 22, 10, 15, 0, 0, time.UTC)
	command.Meta = json.RawMessage(`{"orderId":"1042"}`)
	if err := command.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	body, err := command.AppendJSON(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(schema.SendSubject("main", schema.KindSend, command.ChannelID))
	fmt.Println(string(body))
	// Output:
	// wazzup.main.cmd.send.3376e1c3-26a6-478b-b964-72bf01cc22cb
	// {"id":"order-1042-shipped","channelId":"3376e1c3-26a6-478b-b964-72bf01cc22cb","chatType":"whatsapp","chatId":"79998887766","text":"Your order 1042 has been shipped.","expireAt":"2026-11-22T10:15:00.000Z","meta":{"orderId":"1042"}}
}

func ExampleSendCommand_Validate() {
	command := schema.NewText("", "3376e1c3-26a6-478b-b964-72bf01cc22cb", schema.ChatWhatsApp, "89998887766", " ")
	fmt.Println(command.Validate())
	// Output:
	// invalid command: chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP, text MESSAGE_TEXT_CAN_NOT_BE_BLANK
}

func ExampleSyncCommand() {
	command, err := schema.NewSync(map[string]any{"id": 17, "name": "Contact Name"})
	if err != nil {
		fmt.Println(err)
		return
	}
	command.Group = "nightly"
	body, err := command.AppendJSON(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(schema.SyncSubject("main", schema.EntityContacts, schema.VerbUpsert))
	fmt.Println(string(body), command.Validate(schema.KindContactsUpsert))
	// Output:
	// wazzup.main.cmd.sync.contacts.upsert
	// {"group":"nightly","items":[{"id":17,"name":"Contact Name"}]} <nil>
}

// A worker reads a command and learns of every fault at once.
func ExampleDecode() {
	body := []byte(`{"id":"order-1042-shipped","chatType":"whatsapp","chatId":"89998887766","txt":"hello"}`)
	command, faults := schema.Decode("main", schema.KindSend, "3376e1c3-26a6-478b-b964-72bf01cc22cb", body)
	fmt.Println(command.ID)
	for _, f := range faults {
		fmt.Println(f.Field, f.Code)
	}
	// Output:
	// order-1042-shipped
	// txt UNKNOWN_FIELD
	// chatId CHAT_INCORRECT_CHAT_ID_WHATSAPP
	// text MESSAGE_NOTHING_TO_SEND
}

// A consumer follows one chat.
func ExampleKey() {
	for _, chatID := range []string{"79998887766", "john.doe"} {
		key := schema.Key(chatID)
		fmt.Println(key)
	}
	fmt.Println(schema.MessageEventSubject("main", "in", "3376e1c3-26a6-478b-b964-72bf01cc22cb", "instagram", "john.doe"))
	// Output:
	// 79998887766
	// ~30f69670bba25e88a97e749a67b8b93d
	// wazzup.main.evt.message.in.3376e1c3-26a6-478b-b964-72bf01cc22cb.instagram.~30f69670bba25e88a97e749a67b8b93d
}

// Ids that mean the same are the same text, however they were written.
func ExampleEntityID() {
	for _, raw := range []string{`17`, `"17"`, `9007199254740993`} {
		fmt.Println(schema.EntityID(json.RawMessage(raw)))
	}
	// Output:
	// 17
	// 17
	// 9007199254740993
}

func ExampleCommandEvent() {
	event := []byte(`{"id":"order-1042-shipped","account":"main","kind":"send","state":"rejected","at":"2026-11-22T10:00:00.123Z","attempt":1,
		"error":{"code":"MESSAGES_NOT_TEXT_FIRST","class":"terminal","httpStatus":400,"phase":"answered"},"seq":4711}`)
	var e schema.CommandEvent
	if err := json.Unmarshal(event, &e); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(e.ID, e.State, e.State.Final(), e.Error.Code, e.Error.Class)
	// Output:
	// order-1042-shipped rejected true MESSAGES_NOT_TEXT_FIRST terminal
}

// A consumer tells events apart by their types.
func ExampleDecodeEvent() {
	const channel = "3376e1c3-26a6-478b-b964-72bf01cc22cb"
	for _, stored := range []struct{ subject, body string }{
		{"wazzup.main.evt.message.in." + channel + ".whatsapp.79998887766", `{"messageId":"m-1","chatId":"79998887766","text":"Where is my order?"}`},
		{"wazzup.main.evt.command.dead.send." + channel, `{"id":"order-1042-shipped","state":"dead","error":{"code":"TIMEOUT","reason":"no_evidence"}}`},
	} {
		event, err := schema.DecodeEvent(stored.subject, []byte(stored.body))
		if err != nil {
			fmt.Println(err)
			return
		}
		switch e := event.(type) {
		case *schema.MessageEvent:
			fmt.Println(e.Direction, e.ChatID, e.Text)
		case *schema.CommandEvent:
			fmt.Println(e.ID, e.State, e.Error.Reason)
		}
	}
	// Output:
	// in 79998887766 Where is my order?
	// order-1042-shipped dead no_evidence
}
