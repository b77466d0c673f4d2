package load

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// toMany is what the content of a group message names as its receiver.
const toMany = "*"

// alphabet is what contents are made of. What JSON has to escape is rare in it, so
// that the longest content fits into a frame.
const alphabet = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:-_!?()[]{}=+*/<>&'\"\\\n"

// padding is what the contents of a run are cut from.
func padding(seed uint64) string {
	random := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, 2*maxMaxSize)
	for i := range b {
		b[i] = alphabet[random.IntN(len(alphabet))]
	}
	return string(b)
}

// content is the text of a message of about so many bytes, which tells what it is and
// whether it has come unchanged. bound is its receiver, or toMany.
func (l *Load) content(m message, bound string, size int) (text, sum string) {
	offset := int(uint64(m.n) * 7919 % maxMaxSize)
	head := strings.Join([]string{m.from, bound, strconv.FormatInt(m.n, 10)}, "|")
	pad := "é漢🙂" + l.table[offset:offset+max(size-len(head)-30, 0)]
	sum = digest(head, pad)
	return head + "|" + sum + "|" + pad, sum
}

func digest(head, pad string) string {
	hash := sha256.New()
	_, _ = hash.Write([]byte(head)) // never fails
	_, _ = hash.Write([]byte(pad))
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// parsed is what a content says of itself.
type parsed struct {
	message
	bound   string
	sum     string // as it is
	damaged bool   // that is not the one that it names
}

// parseContent reads a content.
func parseContent(content string) (parsed, error) {
	var p parsed
	parts := strings.SplitN(content, "|", 5)
	if len(parts) != 5 {
		return p, fmt.Errorf("a content of %d bytes that nobody here has written", len(content))
	}
	n, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || n < 1 {
		return p, fmt.Errorf("a content of %d bytes with the number %.20q", len(content), parts[2])
	}
	p.message, p.bound = message{parts[0], n}, parts[1]
	p.sum = digest(strings.Join(parts[:3], "|"), parts[4])
	p.damaged = p.sum != parts[3]
	return p, nil
}
