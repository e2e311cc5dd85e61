// httpget URL... gets each with net/http, whose resolver and event loop are Go's own.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"conformance/say"
)

func main() {
	say.Limit()
	for _, url := range os.Args[1:] {
		for attempt := 1; attempt <= 2; attempt++ { // the second on the same connection
			response, err := http.Get(url)
			if err != nil {
				fmt.Printf("%s: %s\n", url, say.Outcome(err))
				continue
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			fmt.Printf("%s: %s, %s %s", url, response.Status, say.Outcome(err), body)
		}
	}
	name, err := os.Hostname()
	fmt.Printf("host name: %s %s\n", name, say.Outcome(err))
	for _, variable := range []string{"POD_NAME", "GREETING", "WITH_NEWLINE", "EMPTY", "UNKNOWN"} {
		value, set := os.LookupEnv(variable)
		fmt.Printf("%s: %q %t\n", variable, value, set)
	}
}
