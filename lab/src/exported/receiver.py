"""An OTLP/HTTP receiver that validates requests with OpenTelemetry's own schema: anything unknown is an error.

usage: receiver.py PORT FILE [REFUSE]

Writes one JSON line to FILE for each log record, each request with metrics, and each error. The first REFUSE requests
get status 503. Requests are JSON (from the tracer) or protobuf (from a collector), as they are or compressed with gzip.
Needs the package opentelemetry-proto.
"""

import gzip
import http.server
import json
import sys
import threading

try:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
    )
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
    )
except ImportError as why:
    print(why, file=sys.stderr)
    sys.exit(77)


def plain(attributes):
    """Converts attributes to a dictionary; a duplicate name is an error."""
    found = {}
    for pair in attributes:
        if pair.key in found:
            raise ValueError(f"{pair.key} comes twice")
        found[pair.key] = getattr(pair.value, pair.value.WhichOneof("value"))
    return found


def check_resource(message):
    attributes = plain(message.resource.attributes)
    for name in ("service.name", "service.version", "host.name", "os.type", "os.version"):
        if not attributes.get(name):
            raise ValueError(f"the resource has no {name}")


def logs(request):
    for resource in request.resource_logs:
        check_resource(resource)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                if not record.time_unix_nano or record.observed_time_unix_nano < record.time_unix_nano:
                    raise ValueError("a record was observed before it happened")
                if not record.body.string_value or not record.event_name or not record.severity_number:
                    raise ValueError("a record says nothing")
                yield {"log": plain(record.attributes), "severity": record.severity_text}


def metrics(request):
    values = {}
    for resource in request.resource_metrics:
        check_resource(resource)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                is_sum = metric.HasField("sum")
                if is_sum and not (data.is_monotonic and data.aggregation_temporality == 2):
                    raise ValueError(f"{metric.name} is no cumulative counter")
                for point in data.data_points:
                    if is_sum and not 0 < point.start_time_unix_nano <= point.time_unix_nano:
                        raise ValueError(f"{metric.name} ends before it starts")
                    labels = ",".join(f'{k}="{v}"' for k, v in plain(point.attributes).items())
                    name = metric.name + ("_total" if is_sum else "") + (f"{{{labels}}}" if labels else "")
                    if name in values:
                        raise ValueError(f"{name} comes twice")
                    values[name] = float(getattr(point, point.WhichOneof("value")))
    yield {"metrics": values}


SIGNALS = {
    "/v1/logs": (ExportLogsServiceRequest, ExportLogsServiceResponse, logs),
    "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse, metrics),
}
refuse = int(sys.argv[3]) if len(sys.argv) > 3 else 0
out = open(sys.argv[2], "a", encoding="utf-8")
# A collector keeps several connections open.
lock = threading.Lock()


def parse(kind, body, message):
    if kind == "application/x-protobuf":
        message.ParseFromString(body)
        return message
    if kind != "application/json":
        raise ValueError(f"content-type: {kind}")
    return json_format.Parse(body, message, ignore_unknown_fields=False)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global refuse
        body = self.rfile.read(int(self.headers["content-length"]))
        with lock:
            if refuse:
                refuse -= 1
                return self.answer(503, b"", ("Retry-After", "1"))
            lines, status, said = [], 200, b""
            try:
                if (encoding := self.headers["content-encoding"]) == "gzip":
                    body = gzip.decompress(body)
                elif encoding is not None:
                    raise ValueError(f"content-encoding: {encoding}")
                request_type, response_type, read = SIGNALS[self.path]
                kind = self.headers["content-type"]
                lines = list(read(parse(kind, body, request_type())))
                response = response_type()
                is_json = kind == "application/json"
                said = json_format.MessageToJson(response).encode() if is_json else response.SerializeToString()
            except Exception as why:  # The test reports every error.
                lines, status = [{"wrong": f"{self.path}: {why!r}", "body": body.decode(errors="replace")[:2000]}], 400
            for line in lines:
                out.write(json.dumps(line) + "\n")
            out.flush()
        self.answer(status, said)

    def answer(self, status, said, *headers):
        self.send_response(status)
        self.send_header("Content-Type", self.headers["content-type"] or "text/plain")
        self.send_header("Content-Length", str(len(said)))
        for header in headers:
            self.send_header(*header)
        try:
            self.end_headers()
            self.wfile.write(said)
        except OSError:
            pass  # The client has disconnected.

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
