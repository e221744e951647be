package sender

// fifo is a queue that reuses its memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) {
	if q.head > 0 && q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	q.items = append(q.items, v)
}

func (q *fifo[T]) pop() T {
	var zero T
	v := q.items[q.head]
	q.items[q.head] = zero
	q.head++
	if q.head > 64 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return v
}

func (q *fifo[T]) peek() T { return q.items[q.head] }

func (q *fifo[T]) pushFront(v T) {
	if q.head > 0 {
		q.head--
		q.items[q.head] = v
		return
	}
	q.items = append(q.items, v)
	copy(q.items[1:], q.items)
	q.items[0] = v
}

// insert puts v before those at the end of the queue that are behind it.
func (q *fifo[T]) insert(v T, behind func(T) bool) {
	q.push(v)
	for i := len(q.items) - 1; i > q.head && behind(q.items[i-1]); i-- {
		q.items[i], q.items[i-1] = q.items[i-1], q.items[i]
	}
}

// cut takes what the queue holds beyond its first n.
func (q *fifo[T]) cut(n int) []T {
	if q.len() <= n {
		return nil
	}
	at := q.head + n
	rest := append([]T(nil), q.items[at:]...)
	clear(q.items[at:])
	q.items = q.items[:at]
	return rest
}

// all is what the queue holds; it is valid until the next change.
func (q *fifo[T]) all() []T { return q.items[q.head:] }
