/**
 * The admin API: keys, teams, the audit log, usage, status and metrics.
 *
 * **Details**
 *
 * For a listener of its own. Every route is in `routes`, with what it needs: the admin token, or a key with the scope
 * `admin`, or `read-only` for what only looks. Nothing is served without.
 */
import { hash, timingSafeEqual } from "node:crypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import { InvalidSetting, UsageLedger } from "@llm/core"
import { Access, Denied, secretOf } from "./Access.ts"
import type { AdminStatus } from "./AdminStatus.ts"
import { type Issued, KeyStore } from "./KeyStore.ts"
import * as KeyTables from "./KeyTables.ts"
import * as Incoming from "./Incoming.ts"
import * as RequestBody from "./RequestBody.ts"
import * as SchemaProblem from "./SchemaProblem.ts"
import * as UsageReport from "./UsageReport.ts"
import * as VirtualKey from "./VirtualKey.ts"

// ---------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------

export interface Options {
  /** At least 16 characters. */
  readonly token: Redacted.Redacted
  /** What `/admin/status` shows: `AdminStatus.read`. */
  readonly status: Effect.Effect<AdminStatus>
}

/** The largest body that is taken, in bytes. */
const bodyLimit = 64 * 1024

/** The longest that a body may take, in milliseconds. */
const bodyTime = 10_000

/** The longest that an answer may take, in milliseconds: a database may hang. */
const answerTime = 30_000

// ---------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------

/** Turned down, with what to do. */
class Rejected extends Schema.TaggedError<Rejected>()("Rejected", {
  status: Schema.Finite,
  code: Schema.String,
  detail: Schema.String,
  hint: Schema.String,
  param: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return this.detail
  }
}

const noStore = { "cache-control": "no-store" }

const json = (body: unknown, status = 200) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers: noStore })

const toResponse = ({ code, detail, hint, param, status }: Rejected) =>
  json(
    {
      error: {
        message: detail,
        type: status >= 500 ? "service_unavailable_error" : "invalid_request_error",
        param: param ?? null,
        code,
        hint
      }
    },
    status
  )

const badRequest = (detail: string, hint: string, param?: string) =>
  new Rejected({
    status: 400,
    code: "invalid_request",
    detail,
    hint,
    ...(param === undefined ? {} : { param })
  })

type Failure =
  | Rejected
  | { readonly _tag: "KeyUnknown" | "KeyConflict" | "KeyInvalid"; readonly message: string }
  | { readonly _tag: "KeysUnavailable"; readonly message: string; readonly cause?: unknown }
  | { readonly _tag: "LedgerFailed"; readonly message: string }
  | InvalidSetting.InvalidSetting
  | Schema.SchemaError

const ofSchema = (error: Schema.SchemaError): Rejected => {
  const { detail, field } = SchemaProblem.of(error)
  return badRequest(detail, "Correct it and send it again.", field)
}

const unanswered = new Rejected({
  status: 503,
  code: "database_unavailable",
  detail: "The database does not answer.",
  hint: "Nothing is known to have changed: look, and try again."
})

const rejectedOf = (error: Failure): Rejected => {
  switch (error._tag) {
    case "Rejected":
      return error
    case "SchemaError":
      return ofSchema(error)
    case "KeyUnknown":
      return new Rejected({
        status: 404,
        code: "not_found",
        detail: error.message,
        hint: "GET /admin/keys and /admin/teams list what there is."
      })
    case "KeyConflict":
      return new Rejected({
        status: 409,
        code: "conflict",
        detail: error.message,
        hint: "Look at its present state, then decide."
      })
    case "KeyInvalid":
    case "InvalidSetting":
      return badRequest(error.message, "Correct it and send it again.")
    case "KeysUnavailable":
    case "LedgerFailed":
      return unanswered
  }
}

// ---------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------

/** Who asks, and for what. */
interface Context {
  /** For the audit log. */
  readonly by: string
  readonly request: HttpServerRequest.HttpServerRequest
  readonly id: string
}

const readJson = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<unknown, Rejected> =>
  RequestBody.read(Incoming.fromRouter(request), bodyLimit, bodyTime).pipe(
    Effect.mapError(({ _tag }) =>
      _tag === "BodyTooLarge"
        ? new Rejected({
            status: 413,
            code: "request_too_large",
            detail: `The body is larger than ${bodyLimit} bytes.`,
            hint: "Send less."
          })
        : badRequest("The body could not be read.", "Send it again.")
    ),
    Effect.flatMap((bytes) =>
      Effect.try({
        try: (): unknown => (bytes.length === 0 ? {} : JSON.parse(new TextDecoder().decode(bytes))),
        catch: () => badRequest("The body is not JSON.", "Send an object, such as {}.")
      })
    )
  )

const strict = { onExcessProperty: "error" } as const

const bodyOf =
  <S extends Schema.ConstraintDecoder<unknown>>(schema: S) =>
  ({ request }: Context): Effect.Effect<S["Type"], Rejected | Schema.SchemaError> =>
    Effect.flatMap(readJson(request), Schema.decodeUnknownEffect(schema, strict))

const queryOf =
  <S extends Schema.ConstraintDecoder<unknown>>(schema: S) =>
  ({ request }: Context): Effect.Effect<S["Type"], Schema.SchemaError> =>
    Schema.decodeUnknownEffect(
      schema,
      strict
    )(Object.fromEntries(new URL(request.url, "http://admin").searchParams))

const Limit = Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 1000 }))
const pageSize = 100

const readNewKey = bodyOf(VirtualKey.Settings)
const readNewTeam = bodyOf(Schema.Struct({ id: VirtualKey.TeamId, ...VirtualKey.TeamSettings.fields }))
const readChanges = bodyOf(Schema.Record(Schema.String, Schema.Json))
const readRotation = bodyOf(Schema.Struct({ overlap: Schema.optional(Schema.DurationFromString) }))
const readKeyPage = queryOf(
  Schema.Struct({
    team: Schema.optional(Schema.String),
    after: Schema.optional(Schema.String),
    limit: Schema.optional(Limit)
  })
)
const readAuditPage = queryOf(
  Schema.Struct({
    subject: Schema.optional(Schema.String),
    before: Schema.optional(Schema.FiniteFromString),
    limit: Schema.optional(Limit)
  })
)
const readUsage = queryOf(UsageReport.Query)
const readNothing = queryOf(Schema.Struct({}))

// ---------------------------------------------------------------------------
// Routes
// ---------------------------------------------------------------------------

const encodeKey = Schema.encodeSync(VirtualKey.Key)
const encodeSecrets = Schema.encodeSync(Schema.Array(VirtualKey.Secret))
const encodeTeam = Schema.encodeSync(VirtualKey.Team)
const encodeAudit = Schema.encodeSync(Schema.Array(KeyTables.AuditEntry))

/** The only two answers that hold a secret. */
const issued = ({ key, secret }: Issued) => ({ ...encodeKey(key), secret: Redacted.value(secret) })

const defaultOverlap = Duration.hours(24)
const longestOverlap = Duration.days(90)

type Handler = (
  services: {
    readonly keys: KeyStore["Service"]
    readonly ledger: UsageLedger.Service
    readonly status: Effect.Effect<AdminStatus>
  },
  context: Context
) => Effect.Effect<HttpServerResponse.HttpServerResponse, Failure>

interface Route {
  readonly method: "GET" | "POST" | "PATCH" | "DELETE"
  readonly path: `/${string}`
  /** `look` is open to the scope `read-only` too. */
  readonly needs: "look" | "change"
  readonly handle: Handler
}

/** All of them. */
export const routes: ReadonlyArray<Route> = [
  {
    method: "POST",
    path: "/admin/keys",
    needs: "change",
    handle: ({ keys }, context) =>
      readNewKey(context).pipe(
        Effect.flatMap((settings) => keys.create(context.by, settings)),
        Effect.map((made) => json(issued(made), 201))
      )
  },
  {
    method: "GET",
    path: "/admin/keys",
    needs: "look",
    handle: ({ keys }, context) =>
      Effect.gen(function* () {
        const { after, limit = pageSize, team } = yield* readKeyPage(context)
        const page = yield* keys.list({ after, team, limit })
        const last = page.length === limit ? page.at(-1) : undefined
        return json({ data: page.map((key) => encodeKey(key)), next: last?.id ?? null })
      })
  },
  {
    method: "GET",
    path: "/admin/keys/:id",
    needs: "look",
    handle: ({ keys }, { id }) =>
      Effect.map(keys.show(id), ({ key, secrets }) =>
        json({ ...encodeKey(key), secrets: encodeSecrets(secrets) })
      )
  },
  {
    method: "PATCH",
    path: "/admin/keys/:id",
    needs: "change",
    handle: ({ keys }, context) =>
      readChanges(context).pipe(
        Effect.flatMap((changes) => keys.update(context.by, context.id, changes)),
        Effect.map((key) => json(encodeKey(key)))
      )
  },
  {
    method: "POST",
    path: "/admin/keys/:id/rotate",
    needs: "change",
    handle: ({ keys }, context) =>
      Effect.gen(function* () {
        const { overlap = defaultOverlap } = yield* readRotation(context)
        if (Duration.isGreaterThan(overlap, longestOverlap)) {
          return yield* badRequest(
            "overlap: more than 90 days",
            'Send a shorter one, such as "24 hours".',
            "overlap"
          )
        }
        return json(issued(yield* keys.rotate(context.by, context.id, overlap)))
      })
  },
  {
    method: "DELETE",
    path: "/admin/keys/:id",
    needs: "change",
    handle: ({ keys }, { by, id }) => Effect.map(keys.revoke(by, id), (key) => json(encodeKey(key)))
  },
  {
    method: "POST",
    path: "/admin/teams",
    needs: "change",
    handle: ({ keys }, context) =>
      readNewTeam(context).pipe(
        Effect.flatMap(({ id, ...settings }) => keys.createTeam(context.by, id, settings)),
        Effect.map((team) => json(encodeTeam(team), 201))
      )
  },
  {
    method: "GET",
    path: "/admin/teams",
    needs: "look",
    handle: ({ keys }) =>
      Effect.map(keys.teams, (teams) => json({ data: teams.map((team) => encodeTeam(team)), next: null }))
  },
  {
    method: "GET",
    path: "/admin/teams/:id",
    needs: "look",
    handle: ({ keys }, { id }) => Effect.map(keys.showTeam(id), (team) => json(encodeTeam(team)))
  },
  {
    method: "PATCH",
    path: "/admin/teams/:id",
    needs: "change",
    handle: ({ keys }, context) =>
      readChanges(context).pipe(
        Effect.flatMap((changes) => keys.updateTeam(context.by, context.id, changes)),
        Effect.map((team) => json(encodeTeam(team)))
      )
  },
  {
    method: "GET",
    path: "/admin/audit",
    needs: "look",
    handle: ({ keys }, context) =>
      Effect.gen(function* () {
        const { before, limit = pageSize, subject } = yield* readAuditPage(context)
        const page = yield* keys.audit({ before, subject, limit })
        const last = page.length === limit ? page.at(-1) : undefined
        return json({ data: encodeAudit(page), next: last?.seq ?? null })
      })
  },
  {
    method: "GET",
    path: "/admin/usage",
    needs: "look",
    handle: ({ ledger }, context) =>
      Effect.gen(function* () {
        const report = yield* UsageReport.make(ledger, yield* readUsage(context))
        if (report.format === "json") return json({ data: report.data })
        return HttpServerResponse.text(report.text, {
          contentType: "text/csv; charset=utf-8",
          headers: { ...noStore, "content-disposition": 'attachment; filename="usage.csv"' }
        })
      })
  },
  {
    method: "GET",
    path: "/admin/status",
    needs: "look",
    handle: ({ keys, status }, context) =>
      Effect.gen(function* () {
        yield* readNothing(context)
        return json({ ...(yield* status), keys: keys.status() })
      })
  },
  {
    method: "GET",
    path: "/metrics",
    needs: "look",
    handle: () =>
      Effect.map(PrometheusMetrics.format(), (text) =>
        HttpServerResponse.text(text, { contentType: "text/plain; version=0.0.4; charset=utf-8" })
      )
  }
]

const unknownRoute = (method: string, url: string) =>
  new Rejected({
    status: 404,
    code: "unknown_url",
    detail: `There is no ${method} ${url.split("?")[0] ?? ""}.`,
    hint: `There is: ${routes.map((route) => `${route.method} ${route.path}`).join(", ")}.`
  })

// ---------------------------------------------------------------------------
// Rights
// ---------------------------------------------------------------------------

const unauthorized = new Denied({
  status: 401,
  code: "invalid_api_key",
  detail: "The admin API needs the admin token, or a key with the scope admin.",
  hint: "Send it as `Authorization: Bearer …`."
})

const digest = (text: string): Buffer => hash("sha256", text, "buffer")

const owner = "AdminRoutes.layer"
const shortest = 16

/** Fails at start with `InvalidSetting` where the token is too short to be one. */
export const layer = (
  options: Options
): Layer.Layer<never, InvalidSetting.InvalidSetting, HttpRouter.HttpRouter | KeyStore | Access> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const token = Redacted.value(options.token)
      if (token.length < shortest) {
        return yield* new InvalidSetting.InvalidSetting({
          owner,
          setting: "token",
          value: `${token.length} characters long`,
          allowed: `a secret of ${shortest} characters or more`
        })
      }
      const expected = digest(token)
      const router = yield* HttpRouter.HttpRouter
      const access = yield* Access
      const services = {
        keys: yield* KeyStore,
        ledger: yield* UsageLedger.UsageLedger,
        status: options.status
      }

      /** Who asks, if that one may. */
      const actorOf = (
        { headers, remoteAddress }: HttpServerRequest.HttpServerRequest,
        needs: Route["needs"]
      ) => {
        const given = secretOf(headers)
        if (given === undefined) return Effect.fail(unauthorized)
        // Of hashes, which are all of one length.
        if (timingSafeEqual(digest(given), expected)) return Effect.succeed("admin token")
        if (!VirtualKey.isSecret(given)) return Effect.fail(unauthorized)
        return Effect.flatMap(
          access.authenticate(headers, Option.getOrUndefined(remoteAddress)),
          ({ keyId, scopes }) => {
            if (keyId === undefined) return Effect.fail(unauthorized)
            if (scopes.includes("admin") || (needs === "look" && scopes.includes("read-only"))) {
              return Effect.succeed(keyId)
            }
            return Effect.fail(
              new Denied({
                status: 403,
                code: "insufficient_scope",
                detail: `The key ${keyId} may not ${needs === "look" ? "look at" : "change"} this.`,
                hint: `Use a key with the scope ${needs === "look" ? "read-only or admin" : "admin"}, or the admin token.`
              })
            )
          }
        )
      }

      const guarded =
        (needs: Route["needs"], handle: Handler) => (request: HttpServerRequest.HttpServerRequest) =>
          Effect.gen(function* () {
            const by = yield* actorOf(request, needs)
            const { id = "" } = yield* HttpRouter.params
            return yield* Effect.timeoutOrElse(handle(services, { by, request, id }), {
              duration: answerTime,
              orElse: () => Effect.fail(unanswered)
            })
          }).pipe(
            Effect.catch((error) => {
              if (error._tag === "Denied") {
                return Effect.succeed(HttpServerResponse.setHeaders(error.response, noStore))
              }
              const said = error._tag === "KeysUnavailable" || error._tag === "LedgerFailed"
              const answer = toResponse(rejectedOf(error))
              return said
                ? Effect.as(Effect.logWarning(error.message, error), answer)
                : Effect.succeed(answer)
            })
          )

      for (const { handle, method, needs, path } of routes) {
        yield* router.add(method, path, guarded(needs, handle))
      }
      yield* router.add(
        "*",
        "/admin/*",
        guarded("look", (_, { request }) => Effect.fail(unknownRoute(request.method, request.url)))
      )
    })
  )
