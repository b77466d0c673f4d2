package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/linkerhq/linker/pkg/client"
)

// Two users talk to each other. linkerURL is the address of a connector, such as
// ws://localhost:8088.
func Example() {
	linkerURL, stop := startNetwork()
	defer stop()

	ctx := context.Background()
	alice, err := client.Connect(ctx, client.Config{
		URLs:   []string{linkerURL},
		AppID:  "app-id-343",
		UserID: "ANZ-1",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer alice.Close()

	bob, err := client.Connect(ctx, client.Config{
		URLs:   []string{linkerURL},
		AppID:  "app-id-343",
		UserID: "ANZ-2",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer bob.Close()

	// Send returns when the network answers for the message.
	if _, err := alice.Send(ctx, "ANZ-2", "hello"); err != nil {
		log.Fatal(err)
	}
	for message, err := range bob.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(message.From, "says", message.Content)
		break
	}
	// Output: ANZ-1 says hello
}

// A sender that wants to know when the receiver has the message asks for a
// confirmation.
func ExampleSent_Confirmed() {
	linkerURL, stop := startNetwork()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Connect(ctx, client.Config{URLs: []string{linkerURL}, AppID: "app-id-343", UserID: "ANZ-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	sent, err := c.Send(ctx, "ANZ-1", "a note to myself", client.Reference("note-1"), client.Confirm())
	if err != nil {
		log.Fatal(err)
	}
	if err := sent.Confirmed(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sent.Reference, "has arrived")
	// Output: note-1 has arrived
}

// A message to several users at once.
func ExampleClient_SendGroup() {
	linkerURL, stop := startNetwork()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URLs: []string{linkerURL}, AppID: "app-id-343", UserID: "ANZ-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.SendGroup(ctx, []string{"ANZ-1", "ANZ-2", "ANZ-3"}, "to all"); err != nil {
		log.Fatal(err)
	}
	for message := range c.Messages(ctx) {
		fmt.Println(message.Content)
		break
	}
	// Output: to all
}

// With an outbox in a file, a message that the network has not accepted when the
// program ends is sent by its next run.
func ExampleOpenOutbox() {
	linkerURL, stop := startNetwork()
	defer stop()
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	outbox, err := client.OpenOutbox(filepath.Join(dir, "ANZ-1.outbox"))
	if err != nil {
		log.Fatal(err)
	}
	defer outbox.Close()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{
		URLs: []string{linkerURL}, AppID: "app-id-343", UserID: "ANZ-1",
		Outbox: outbox,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close() // before the outbox

	if _, err := c.Send(ctx, "ANZ-2", "kept until it is accepted"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Waiting(), "wait")
	// Output: 0 wait
}

// startNetwork runs a small network for an example.
func startNetwork() (url string, stop func()) {
	n := newNetwork()
	return n.url(), n.server.Close
}
