"""The Open Inference Protocol over gRPC, beside HTTP and on the same front (extra ``grpc``)."""
