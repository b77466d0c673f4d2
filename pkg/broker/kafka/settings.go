package kafka

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names of settings of topics. Brokers have defaults for them under names of
// their own.
const (
	cleanupPolicy   = "cleanup.policy"
	policyDelete    = "delete"
	policyCompact   = "compact"
	retentionMillis = "retention.ms"
	retentionBytes  = "retention.bytes"
	maxMessage      = "max.message.bytes"
	minInSync       = "min.insync.replicas"
	uncleanElection = "unclean.leader.election.enable"

	offsetsRetention = "offsets.retention.minutes" // of brokers
)

const (
	unlimited = -1
	// What is consumed within a second is kept for so long anyway: for a domain
	// that is down over night.
	leastRetention = int64(24 * time.Hour / time.Millisecond)
	newRetention   = int64(7 * 24 * time.Hour / time.Millisecond)
	leastBytes     = 64 << 20 // of each partition
	// leastOffsets is how long a group without members keeps its positions, in
	// minutes.
	leastOffsets = int64(7 * 24 * time.Hour / time.Minute)
)

func tooShort(millis int64) bool { return millis != unlimited && millis < leastRetention }

func tooSmall(bytes int64) bool { return bytes != unlimited && bytes < leastBytes }

// settings are those of a topic or of a broker, as it tells them. One that is
// not told counts as fit.
type settings map[string]string

// number says whether there is one, too.
func (s settings) number(key string) (int64, bool) {
	n, err := strconv.ParseInt(s[key], 10, 64)
	return n, err == nil
}

// retention is how long a broker keeps records of topics that say nothing of
// it, in milliseconds: of three settings the finest counts.
func (s settings) retention() (int64, bool) {
	for _, unit := range []struct {
		key    string
		millis int64
	}{{"log.retention.ms", 1}, {"log.retention.minutes", time.Minute.Milliseconds()}, {"log.retention.hours", time.Hour.Milliseconds()}} {
		if n, told := s.number(unit.key); told {
			return max(n*unit.millis, unlimited), true
		}
	}
	return 0, false
}

// finding is what the checks at the start have found.
type finding struct {
	cfg      Config
	brokers  int // that are up
	refused  []string
	warnings []warning
}

// warning is a line for the operator.
type warning struct{ text, reason string }

func (f *finding) warn(text, reason string) {
	if w := (warning{text, reason}); !slices.Contains(f.warnings, w) {
		f.warnings = append(f.warnings, w)
	}
}

// refuse says what is wrong with a setting, why, and what to set.
func (f *finding) refuse(topic, key, have, why, set string) {
	f.refused = append(f.refused, fmt.Sprintf("%s of %s is %s, but %s: set %s=%s (kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s)",
		key, topic, have, why, key, set, topic, key, set))
}

func (f *finding) mistakes() error {
	if len(f.refused) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrTopicMismatch, strings.Join(f.refused, "; "))
}

// lookAt checks a topic that should have so many partitions.
func (f *finding) lookAt(topic string, partitions int, seen layout, s settings) {
	switch {
	case seen.partitions == partitions:
	case topic == f.cfg.topic():
		f.refused = append(f.refused, fmt.Sprintf("%s has %d partitions, but lanes is %d: set lanes to %d, it can never change for a topic", topic, seen.partitions, partitions, seen.partitions))
	default:
		f.refused = append(f.refused, fmt.Sprintf("%s has %d partitions, expected is %d: take what is in it and delete it, it is made anew", topic, seen.partitions, partitions))
	}
	if have, told := s.number(maxMessage); told && have < int64(f.cfg.maxMessageBytes()) {
		f.refuse(topic, maxMessage, s[maxMessage], "a request of ours can be larger", strconv.Itoa(f.cfg.maxMessageBytes()))
	}
	f.lookAtRetention(topic, s)
	f.lookAtReplicas(topic, seen, s)
}

func (f *finding) lookAtRetention(topic string, s settings) {
	policy, told := s[cleanupPolicy]
	policies := strings.Split(strings.ReplaceAll(policy, " ", ""), ",")
	if told && (!slices.Contains(policies, policyDelete) || slices.Contains(policies, policyCompact)) {
		f.refuse(topic, cleanupPolicy, strconv.Quote(policy), "records may not be removed because a later one has the same key", policyDelete)
	}
	if have, told := s.number(retentionMillis); told && tooShort(have) {
		f.refuse(topic, retentionMillis, s[retentionMillis], "records that are not settled when it ends are lost; at least a day, or -1", strconv.FormatInt(newRetention, 10))
	}
	if have, told := s.number(retentionBytes); told && tooSmall(have) {
		f.refuse(topic, retentionBytes, s[retentionBytes], "records that are not settled when it is reached are lost; at least 64 MiB a partition, or -1", strconv.Itoa(unlimited))
	}
}

func (f *finding) lookAtReplicas(topic string, seen layout, s settings) {
	if f.brokers == 1 && seen.replicas == 1 {
		f.warn("the log lives on one machine", "there is one broker: what it loses is lost, and nothing works while it is away")
		return
	}
	if seen.replicas < fewReplicas {
		f.refused = append(f.refused, fmt.Sprintf("%s has a replication factor of %d, although there are %d brokers, so that the loss of one loses records: raise it to %d (kafka-reassign-partitions.sh)",
			topic, seen.replicas, f.brokers, min(f.brokers, replicas)))
	}
	inSync, told := s.number(minInSync)
	switch {
	case told && inSync < fewReplicas:
		f.refuse(topic, minInSync, s[minInSync], "a record could be acknowledged by one broker and lost with it", strconv.Itoa(fewReplicas))
	case told && inSync > int64(seen.replicas) && seen.replicas >= fewReplicas:
		f.refuse(topic, minInSync, s[minInSync], fmt.Sprintf("there are %d replicas, so that nothing can ever be written", seen.replicas), strconv.Itoa(fewReplicas))
	}
	if s[uncleanElection] == "true" {
		f.refuse(topic, uncleanElection, "true", "a broker that lacks acknowledged records could become the leader", "false")
	}
}

func (f *finding) lookAtBroker(s settings) {
	if minutes, told := s.number(offsetsRetention); told && minutes < leastOffsets {
		f.warn("positions of groups are kept for less than 7 days",
			fmt.Sprintf("%s of the brokers is %d: a domain that is down for longer forgets where its lanes stood", offsetsRetention, minutes))
	}
	if f.cfg.SASL == saslPlain && !f.cfg.encrypts() {
		f.warn("the password for Kafka travels unprotected", "SASL plain is used without TLS")
	}
}
