// A shop client as one might write it: it finds its service through the environment, resolves it by name and asks it
// over HTTP. It prints what it finds, so that one can see in which world it runs. It knows nothing of mirrord-trace.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const timeout = 10 * time.Second

// say prints one finding with its name in front of it.
func say(name, value string) {
	lines := strings.Split(strings.TrimRight(value, "\n"), "\n")
	for _, line := range lines {
		fmt.Printf("  %-22s %s\n", name, line)
		name = ""
	}
}

// call asks the service at the address for its greeting and tells each step on the way.
func call(address string) error {
	parsed, err := url.Parse(address)
	if err != nil {
		return err
	}
	found, err := net.LookupHost(parsed.Hostname())
	if err != nil {
		return err
	}
	say(parsed.Hostname()+" is", strings.Join(found, ", "))

	client := http.Client{Timeout: timeout}
	response, err := client.Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	say("GET "+address, response.Status)
	say("the service answers", string(body))
	return nil
}

func main() {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = err.Error()
	}
	say("my host is called", hostname)
	for _, name := range []string{"GREETING", "SHOP_URL"} {
		value, present := os.LookupEnv(name)
		if !present {
			value = "(not set)"
		}
		say("$"+name, value)
	}
	address := os.Getenv("SHOP_URL")
	if address == "" {
		say("", "Without $SHOP_URL there is nothing that I could call.")
		return
	}
	if err := call(address); err != nil {
		say("failed", err.Error())
		os.Exit(1)
	}
}
