/**
 * The admin API on a port of its own, for whoever has the token. Without a token there is none.
 */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as HttpRouter from "effect/http/HttpRouter"
import type { ServeError } from "effect/http/HttpServerError"
import { InvalidSetting } from "@llm/core"
import type { Access } from "./Access.ts"
import * as AdminRoutes from "./AdminRoutes.ts"
import type { ConfigFile } from "./ConfigFile.ts"
import * as DrainingServer from "./DrainingServer.ts"
import type { KeyStore } from "./KeyStore.ts"
import { Pipeline } from "./Pipeline.ts"
import * as ReferencePage from "./ReferencePage.ts"
import * as SecretSource from "./SecretSource.ts"
import * as Tls from "./Tls.ts"

/** `LLM_ADMIN_TOKEN`, `LLM_ADMIN_HOST` (127.0.0.1) and `LLM_ADMIN_PORT` (8081), over what the file says. */
const settings = ({ admin }: ConfigFile) =>
  Effect.gen(function* () {
    const token = yield* Config.option(Config.Redacted("LLM_ADMIN_TOKEN"))
    return {
      host: yield* Config.NonEmptyString("LLM_ADMIN_HOST").pipe(
        Config.withDefault(admin?.host ?? "127.0.0.1")
      ),
      port: yield* Config.Port("LLM_ADMIN_PORT").pipe(Config.withDefault(admin?.port ?? 8081)),
      token:
        Option.isSome(token) || admin === undefined
          ? Option.getOrUndefined(token)
          : yield* SecretSource.read("admin.token", admin.token)
    }
  })

/**
 * The certificate of `admin.tls`; `undefined` for plain HTTP. Fails where it cannot be used, and where it is to be that of
 * `server.tls` and there is none.
 */
export const certificate = Effect.fnUntraced(function* ({ admin, server }: ConfigFile) {
  const asked = admin?.tls ?? false
  if (asked === false) return undefined
  if (asked !== true) return yield* Tls.load(asked, "admin.tls")
  if (server?.tls !== undefined) return yield* Tls.load(server.tls, "admin.tls")
  return yield* new InvalidSetting.InvalidSetting({
    owner: "llm.config",
    setting: "admin.tls",
    value: "true",
    allowed: "files of its own, or true where server.tls names some"
  })
})

const requestTimeout = 30_000

/** The server, and what follows its certificate. */
const serverOf = (tls: Tls.Tls | undefined) => {
  if (tls === undefined) return { server: createServer({ requestTimeout }), follow: Layer.empty }
  const server = DrainingServer.makeSecure({ requestTimeout }, tls.certificate)
  return { server, follow: Tls.follow(server, tls) }
}

/**
 * Serves it where there is a token.
 *
 * @param tls plain HTTP unless given
 */
export const layer = (
  file: ConfigFile,
  tls?: Tls.Tls
): Layer.Layer<
  never,
  Config.ConfigError | SecretSource.SecretMissing | InvalidSetting.InvalidSetting | ServeError,
  Access | FileSystem.FileSystem | KeyStore | Pipeline
> =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { host, port, token } = yield* settings(file)
      if (token === undefined) return Layer.empty
      const { status } = yield* Pipeline
      const { follow, server } = serverOf(tls)
      return Layer.fresh(
        HttpRouter.serve(Layer.merge(AdminRoutes.layer({ token, status }), ReferencePage.layer(true)), {
          disableLogger: true,
          disableListenLog: true
        })
      ).pipe(
        Layer.provide(
          Layer.merge(
            follow,
            NodeHttpServer.layerServer(() => server, { host, port, gracefulShutdownTimeout: "1 second" })
          )
        )
      )
    })
  )
