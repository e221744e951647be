package schema

// Kind is what a command asks for. It is the `<kind>` token of event subjects.
type Kind string

// The kinds of command. Send and Bulk both send one message and differ in
// priority only; the others keep Wazzup's copy of a CRM's entities in step.
const (
	KindSend           Kind = "send"
	KindBulk           Kind = "bulk"
	KindUsersUpsert    Kind = "users-upsert"
	KindUsersReplace   Kind = "users-replace"
	KindUsersDelete    Kind = "users-delete"
	KindContactsUpsert Kind = "contacts-upsert"
	KindContactsDelete Kind = "contacts-delete"
	KindDealsUpsert    Kind = "deals-upsert"
	KindDealsDelete    Kind = "deals-delete"
)

// Kinds returns every kind, in the order of the documentation.
func Kinds() []Kind {
	return []Kind{
		KindSend, KindBulk,
		KindUsersUpsert, KindUsersReplace, KindUsersDelete,
		KindContactsUpsert, KindContactsDelete,
		KindDealsUpsert, KindDealsDelete,
	}
}

// IsMessage reports whether the kind sends a message, that is, whether the
// vendor's call is one that must never be repeated blindly.
func (k Kind) IsMessage() bool { return k == KindSend || k == KindBulk }

// Entity is one of the three lists that sync commands keep in step.
type Entity string

// The vendor's entities; the words are those of subjects and of URL paths.
const (
	EntityUsers    Entity = "users"
	EntityContacts Entity = "contacts"
	EntityDeals    Entity = "deals"
)

// Entities returns every entity.
func Entities() []Entity { return []Entity{EntityUsers, EntityContacts, EntityDeals} }

// Verb is what a sync command does to its entity.
type Verb string

// The verbs of sync commands. Only users know VerbReplace (manual: PUT /v2/users).
const (
	VerbUpsert  Verb = "upsert"
	VerbReplace Verb = "replace"
	VerbDelete  Verb = "delete"
)

// SyncKind returns the kind of a sync command, or "" when the vendor has no
// such method (contacts and deals cannot be replaced as a whole).
func SyncKind(e Entity, v Verb) Kind {
	k := Kind(string(e) + "-" + string(v))
	if _, _, ok := k.Sync(); !ok {
		return ""
	}
	return k
}

// Sync splits the kind of a sync command into entity and verb; ok is false for
// KindSend, KindBulk and for anything that is no kind at all.
func (k Kind) Sync() (e Entity, v Verb, ok bool) {
	switch k {
	case KindUsersUpsert:
		return EntityUsers, VerbUpsert, true
	case KindUsersReplace:
		return EntityUsers, VerbReplace, true
	case KindUsersDelete:
		return EntityUsers, VerbDelete, true
	case KindContactsUpsert:
		return EntityContacts, VerbUpsert, true
	case KindContactsDelete:
		return EntityContacts, VerbDelete, true
	case KindDealsUpsert:
		return EntityDeals, VerbUpsert, true
	case KindDealsDelete:
		return EntityDeals, VerbDelete, true
	case KindSend, KindBulk:
	}
	return "", "", false
}
