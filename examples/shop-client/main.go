// A shop client as one might write it: it reads its settings from a file, finds its service through the environment,
// resolves it by name and asks it over HTTP. It prints what it finds, so that one can see in which world it runs. It
// knows nothing of mirrord-trace.
package main

import (
	"encoding/json"
	"fmt"
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
	fmt.Printf("  %-22s %s\n", name, value)
}

// setting reads one of the settings in a file of lines like "name = value".
func setting(path, name string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(string(content), "\n") {
		if found, value, _ := strings.Cut(line, " = "); found == name {
			return value, nil
		}
	}
	return "", fmt.Errorf("%s does not say %q", path, name)
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
	say("its name resolves to", strings.Join(found, ", "))

	client := http.Client{Timeout: timeout}
	response, err := client.Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct{ Service, Caller string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	say("it answers", response.Status)
	say("and calls itself", answer.Service)
	say("it saw a call from", answer.Caller)
	return nil
}

func main() {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = err.Error()
	}
	say("my host is called", hostname)
	directory, err := os.Getwd()
	if err != nil {
		directory = err.Error()
	}
	say("I work in", directory)
	for _, name := range []string{"POD_NAME", "GREETING", "SHOP_CONFIG", "SHOP_URL"} {
		value, present := os.LookupEnv(name)
		if !present {
			value = "(not set)"
		}
		say("$"+name, value)
	}
	if config := os.Getenv("SHOP_CONFIG"); config != "" {
		offer, err := setting(config, "offer")
		if err != nil {
			offer = err.Error()
		}
		say("that file's offer is", offer)
	}
	address := os.Getenv("SHOP_URL")
	if address == "" {
		say("so", "there is no shop that I could call")
		return
	}
	if err := call(address); err != nil {
		say("failed", err.Error())
		os.Exit(1)
	}
}
