package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"kmsfs/kmsprovider/local"
)

// doAllPages performs in as the account's root. Lists are fetched to their end,
// as the AWS CLI does, unless the user asked for a page.
func doAllPages(ctx context.Context, k *local.Keystore, in local.Input) (any, error) {
	out, err := k.Do(ctx, k.Root(), in)
	marker := reflect.ValueOf(in).Elem().FieldByName("Marker")
	if err != nil || !marker.IsValid() || marker.String() != "" || !reflect.ValueOf(in).Elem().FieldByName("Limit").IsNil() {
		return out, err
	}
	all := reflect.ValueOf(out).Elem()
	for next := all; next.FieldByName("Truncated").Bool(); {
		marker.SetString(next.FieldByName("NextMarker").String())
		page, err := k.Do(ctx, k.Root(), in)
		if err != nil {
			return nil, err
		}
		next = reflect.ValueOf(page).Elem()
		all.Field(0).Set(reflect.AppendSlice(all.Field(0), next.Field(0)))
		all.FieldByName("Truncated").SetBool(next.FieldByName("Truncated").Bool())
		all.FieldByName("NextMarker").SetString(next.FieldByName("NextMarker").String())
	}
	return out, nil
}

// printOutput prints an operation's output as the AWS CLI does; nil is nothing.
func printOutput(w io.Writer, out any) error {
	if out == nil {
		return nil
	}
	var b bytes.Buffer
	if err := printJSON(&b, out); err != nil {
		return err
	}
	defer func() { clear(b.Bytes()) }()
	if _, err := w.Write(showDates(b.Bytes())); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printJSON prints v indented as the AWS CLI does.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// dateLine is a line of indented JSON with a date: AWS's names for them all end
// so, and no text in JSON has a line break.
var dateLine = regexp.MustCompile(`(?m)^( *"\w*(?:Date|ValidTo)": )([0-9.]+)(,?)$`)

// showDates turns the dates of AWS's protocol, seconds, into those that the AWS
// CLI prints.
func showDates(b []byte) []byte {
	return dateLine.ReplaceAllFunc(b, func(line []byte) []byte {
		m := dateLine.FindSubmatch(line)
		seconds, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return line
		}
		date := time.UnixMilli(int64(math.Round(seconds * 1000))).UTC().Format("2006-01-02T15:04:05.000000-07:00")
		return fmt.Appendf(nil, "%s%q%s", m[1], date, m[3])
	})
}
