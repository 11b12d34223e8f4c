/**
 * The gateway's own endpoints as an OpenAPI 3.1 document, made of the tables that serve them. What a body holds is
 * OpenAI's to describe: https://platform.openai.com/docs/api-reference.
 */
import * as AdminRoutes from "./AdminRoutes.ts"
import * as Endpoints from "./Endpoints.ts"

/** JSON, as far as the document needs it. */
type Json = string | number | boolean | null | ReadonlyArray<Json> | { readonly [name: string]: Json }

const ref = (kind: "headers" | "parameters" | "responses" | "schemas", name: string): Json => ({
  $ref: `#/components/${kind}/${name}`
})

const text = { type: "string" } as const
const header = (description: string, schema: Json = text): Json => ({ description, schema })
const asked = (name: string, description: string, schema: Json = text): Json => ({
  name,
  in: "header",
  required: false,
  description,
  schema
})

/** What a caller may ask for, by the name of its component. */
const parameters: Readonly<Record<string, Json>> = {
  timeout: asked("x-llm-timeout-ms", "How long the caller waits, over all attempts, in milliseconds.", {
    type: "integer",
    minimum: 1,
    maximum: 999_999_999
  }),
  explain: asked("x-llm-explain", "`true` remembers what becomes of this call.", {
    type: "string",
    enum: ["true"]
  }),
  idempotencyKey: asked("idempotency-key", "A repetition of this POST gets the same answer, for 24 hours.", {
    type: "string",
    minLength: 1,
    maxLength: 255
  })
}

/** What an answer tells. */
const headers: Readonly<Record<string, Json>> = {
  "x-request-id": header("The provider's name for the exchange."),
  "x-llm-call-id": header("Ours, as in the ledger and in traces."),
  "x-llm-deployment": header("Who answered."),
  "x-llm-attempts": header("After how many exchanges.", { type: "integer", minimum: 0 }),
  "x-llm-batched": header("With how many requests for embeddings it was sent as one, itself included.", {
    type: "integer",
    minimum: 2
  }),
  "x-llm-cache": header("Absent where the cache was not asked.", {
    type: "string",
    enum: ["hit", "miss", "shared", "similar"]
  }),
  "x-llm-cost": header("Dollars, of a whole reply with a known price."),
  "x-llm-explain-id": header("For `GET /v1/llm/explain/{id}`.")
}

const referred = (names: ReadonlyArray<string>): Json =>
  Object.fromEntries(names.map((name) => [name, ref("headers", name)]))

const waits: Readonly<Record<string, string>> = {
  "retry-after": "Seconds until it may be tried again.",
  "x-ratelimit-reset-requests": "The same for the requests of the key, as OpenAI writes it: `1m0s`."
}

const failure = (description: string, more: ReadonlyArray<string> = []): Json => ({
  description,
  headers: {
    ...Object.fromEntries(more.map((name) => [name, header(waits[name] ?? name)])),
    "x-should-retry": header("`false` on what has been retried here already.")
  },
  content: { "application/json": { schema: ref("schemas", "Error") } }
})

const responses: Readonly<Record<string, Json>> = {
  "400": failure("The request is not what it should be."),
  "401": failure("No key, or one that nobody knows."),
  "403": failure("The key may not do this."),
  "404": failure("There is no such thing, or it is not the caller's."),
  "429": failure("A limit, a budget, or the provider's own.", ["retry-after", "x-ratelimit-reset-requests"]),
  "5XX": failure("The provider failed, or the gateway has no place.", ["retry-after"])
}

const failures = (statuses = Object.keys(responses)): { readonly [status: string]: Json } =>
  Object.fromEntries(statuses.map((status) => [status, ref("responses", status)]))

const schemas: Readonly<Record<string, Json>> = {
  Error: {
    type: "object",
    required: ["error"],
    properties: {
      error: {
        type: "object",
        required: ["message", "type", "param", "code"],
        properties: {
          message: text,
          type: text,
          param: { type: ["string", "null"] },
          code: { type: ["string", "null"] },
          hint: { type: "string", description: "What to do about it." },
          llm: {
            type: "object",
            description: "Which error it was, and its fields, where it is one of the gateway's."
          }
        }
      }
    }
  },
  Object: { type: "object", additionalProperties: true }
}

const named = (path: string): ReadonlyArray<Json> =>
  [...path.matchAll(/\{(\w+)\}/gu)].map(([, name = ""]) => ({
    name,
    in: "path",
    required: true,
    schema: text
  }))

const bodies: Readonly<Record<Exclude<Endpoints.Endpoint["body"], "none">, Json>> = {
  json: { required: true, content: { "application/json": { schema: ref("schemas", "Object") } } },
  form: { required: true, content: { "multipart/form-data": { schema: ref("schemas", "Object") } } }
}

const contents: Readonly<Record<Endpoints.Endpoint["reply"], Json>> = {
  json: { "application/json": { schema: ref("schemas", "Object") } },
  events: { "application/json": { schema: ref("schemas", "Object") }, "text/event-stream": { schema: text } },
  bytes: { "*/*": { schema: { type: "string", contentMediaType: "application/octet-stream" } } }
}

const ofEndpoint = ({
  body,
  cached,
  method,
  operation,
  path,
  reply,
  replaySafe
}: Endpoints.Endpoint): Json => ({
  operationId: operation,
  tags: [operation.split(".")[0] ?? operation],
  summary: `OpenAI's ${operation}`,
  parameters: [
    ...named(path),
    ref("parameters", "timeout"),
    ref("parameters", "explain"),
    ...(method === "post" && body !== "form" ? [ref("parameters", "idempotencyKey")] : [])
  ],
  ...(body === "none" ? {} : { requestBody: bodies[body] }),
  responses: {
    "200": {
      description: "As the provider answered.",
      headers: referred(Object.keys(headers)),
      content: contents[reply]
    },
    ...failures()
  },
  "x-llm-cached": cached,
  "x-llm-replay-safe": replaySafe
})

const nameOf = (method: string, path: string): string =>
  `${path.replaceAll(/[{}:]/gu, "").slice(1).replaceAll("/", ".")}.${method.toLowerCase()}`

const ofAdmin = ({ method, needs, path }: (typeof AdminRoutes.routes)[number]): Json => ({
  operationId: nameOf(method, path),
  tags: ["admin"],
  summary:
    needs === "look"
      ? "Needs the admin token, or a key with the scope read-only or admin."
      : "Needs the admin token, or a key with the scope admin.",
  parameters: named(braced(path)),
  ...(method === "POST" || method === "PATCH" ? { requestBody: bodies.json } : {}),
  responses: {
    "2XX": {
      description: "Done.",
      content: path === "/metrics" ? { "text/plain": { schema: text } } : contents.json
    },
    ...failures(["400", "401", "403", "404"])
  },
  security: [{ adminToken: [] }]
})

const braced = (path: string): string => path.replaceAll(/:(\w+)/gu, "{$1}")

const plain = (
  operationId: string,
  summary: string,
  status: string,
  description: string,
  content: Json = contents.json
): Json => ({
  operationId,
  tags: ["gateway"],
  summary,
  responses: { [status]: { description, content } },
  security: []
})

const html: Json = { "text/html": { schema: text } }

/** Operations by path and method. */
const pathsOf = (
  operations: ReadonlyArray<readonly [path: string, method: string, operation: Json]>
): Json => {
  const paths: Record<string, Record<string, Json>> = {}
  for (const [path, method, operation] of operations) (paths[path] ??= {})[method] = operation
  return paths
}

const explain: Json = {
  operationId: "llm.explain",
  tags: ["gateway"],
  summary: "What became of a call that was sent with x-llm-explain: true.",
  parameters: named("/{id}"),
  responses: {
    "200": { description: "Attempts, waits, cache, usage, price, cost and limits.", content: contents.json },
    ...failures(["401", "404"])
  }
}

const realtime: Json = {
  operationId: "realtime.connect",
  tags: ["realtime"],
  summary: "OpenAI's Realtime API: a WebSocket.",
  parameters: [{ name: "model", in: "query", required: true, schema: text }],
  responses: { "101": { description: "Connected." }, ...failures() }
}

/**
 * Makes the document.
 *
 * @param admin whether the admin API is described too
 */
export const make = (admin: boolean): Json => ({
  openapi: "3.1.0",
  info: {
    title: "llm gateway",
    version: "1",
    description:
      "OpenAI's API through retries, limits, budgets, a cache and accounts. Bodies and replies are OpenAI's own; what is described here is what the gateway adds."
  },
  externalDocs: { url: "https://platform.openai.com/docs/api-reference", description: "Bodies and replies" },
  security: [{ bearer: [] }, { apiKey: [] }],
  paths: pathsOf([
    ...Endpoints.all.map(
      (endpoint) => [`/v1${endpoint.path}`, endpoint.method, ofEndpoint(endpoint)] as const
    ),
    ["/v1/llm/explain/{id}", "get", explain],
    ["/healthz", "get", plain("gateway.health", "The process answers.", "200", "It does.")],
    ["/readyz", "get", plain("gateway.ready", "New calls are taken.", "200", "They are; 503 where not.")],
    ["/v1/realtime", "get", realtime],
    ["/docs", "get", plain("gateway.reference", "A page to read this document.", "200", "HTML.", html)],
    ["/openapi.json", "get", plain("gateway.description", "This document.", "200", "OpenAPI 3.1.")],
    ...(admin ? AdminRoutes.routes : []).map(
      (route) => [braced(route.path), route.method.toLowerCase(), ofAdmin(route)] as const
    )
  ]),
  components: {
    parameters,
    headers,
    responses,
    schemas,
    securitySchemes: {
      bearer: {
        type: "http",
        scheme: "bearer",
        description: "A key of the gateway (sk-llm-…); any where none is required."
      },
      apiKey: { type: "apiKey", in: "header", name: "api-key" },
      ...(admin
        ? {
            adminToken: {
              type: "http",
              scheme: "bearer",
              description: "LLM_ADMIN_TOKEN, or a key with the scope admin or read-only."
            }
          }
        : {})
    }
  }
})
