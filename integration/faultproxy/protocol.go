package faultproxy

import (
	"net/http"
	"strconv"
	"strings"
)

// protocol is how a service speaks.
type protocol struct {
	operation func(r *http.Request) string                 // as AWS names it
	failure   func(code string) (contentType, body string) // an answer with an error code
}

var kms = protocol{
	operation: func(r *http.Request) string {
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		return operation
	},
	failure: func(code string) (string, string) {
		return "application/x-amz-json-1.1", `{"__type":` + strconv.Quote(code) + `,"message":"a fault of the test"}`
	},
}

var s3 = protocol{
	operation: operationOfS3,
	failure: func(code string) (string, string) {
		return "application/xml", "<Error><Code>" + code + "</Code><Message>a fault of the test</Message></Error>"
	},
}

// operationOfS3 tells operations apart by method, query, and whether the path
// has a key. Those that no test is interested in have their method.
func operationOfS3(r *http.Request) string {
	query := r.URL.Query()
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch of := r.Method; {
	case of == http.MethodPut && query.Has("partNumber"):
		return "UploadPart"
	case of == http.MethodPut && key != "":
		return "PutObject"
	case of == http.MethodPost && query.Has("uploads"):
		return "CreateMultipartUpload"
	case of == http.MethodPost && query.Has("uploadId"):
		return "CompleteMultipartUpload"
	case of == http.MethodPost && query.Has("delete"):
		return "DeleteObjects"
	case of == http.MethodDelete && query.Has("uploadId"):
		return "AbortMultipartUpload"
	case of == http.MethodGet && query.Has("uploadId"):
		return "ListParts"
	case of == http.MethodGet && query.Has("uploads"):
		return "ListMultipartUploads"
	case of == http.MethodGet && key != "":
		return "GetObject"
	case of == http.MethodGet:
		return "ListObjectsV2"
	case of == http.MethodHead && key != "":
		return "HeadObject"
	case of == http.MethodHead:
		return "HeadBucket"
	default:
		return of
	}
}
