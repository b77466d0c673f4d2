package custody

import (
	"slices"

	"github.com/linkerhq/linker/pkg/envelope"
)

// queue is a list that is added to at its end and mostly emptied from its front. It keeps
// its memory until free.
type queue[T any] struct {
	list []T // what lies before head was dropped
	head int
}

// all returns the entries, oldest first; valid until the next change.
func (q *queue[T]) all() []T { return q.list[q.head:] }

func (q *queue[T]) len() int { return len(q.list) - q.head }

func (q *queue[T]) push(v T) {
	if len(q.list) == cap(q.list) && q.head > len(q.list)/2 {
		q.pack()
	}
	q.list = append(q.list, v)
}

// pack moves the entries to the beginning of the memory.
func (q *queue[T]) pack() {
	n := copy(q.list, q.list[q.head:])
	clear(q.list[n:])
	q.list, q.head = q.list[:n], 0
}

// drop removes the n oldest entries.
func (q *queue[T]) drop(n int) {
	clear(q.list[q.head : q.head+n])
	q.head += n
	if q.head == len(q.list) {
		q.list, q.head = q.list[:0], 0
	}
}

// keep removes the entries for which it is false.
func (q *queue[T]) keep(wanted func(T) bool) {
	q.pack()
	q.list = slices.DeleteFunc(q.list, func(v T) bool { return !wanted(v) })
}

// free gives the memory back if nothing is in it.
func (q *queue[T]) free() {
	if q.len() == 0 {
		q.list, q.head = nil, 0
	}
}

// items are a user's items in the order of their positions. They come at the end and go at
// the front, as a rule.
type items struct{ queue[*item] }

// at is the index of a position, or where it would be.
func (is *items) at(pos envelope.Position) (int, bool) {
	list := is.all()
	if n := len(list); n == 0 || list[n-1].pos.Before(pos) {
		return n, false
	}
	return slices.BinarySearchFunc(list, pos, func(it *item, pos envelope.Position) int { return it.pos.Compare(pos) })
}

// find returns the item at a position, nil if there is none.
func (is *items) find(pos envelope.Position) *item {
	if i, found := is.at(pos); found {
		return is.all()[i]
	}
	return nil
}

// add puts an item in its place, instead of another one at its position.
func (is *items) add(it *item) {
	i, found := is.at(it.pos)
	switch {
	case found:
		is.all()[i] = it
	case i == is.len():
		is.push(it)
	case i == 0 && is.head > 0:
		is.head--
		is.list[is.head] = it
	default:
		is.list = slices.Insert(is.list, is.head+i, it)
	}
}

// remove takes an item out and says whether it was there.
func (is *items) remove(it *item) bool {
	i, found := is.at(it.pos)
	if !found || is.all()[i] != it {
		return false
	}
	if i == 0 {
		is.drop(1)
	} else {
		is.list = slices.Delete(is.list, is.head+i, is.head+i+1)
	}
	return true
}
