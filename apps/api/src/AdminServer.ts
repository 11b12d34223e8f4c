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
import type { InvalidSetting } from "@llm/core"
import type { Access } from "./Access.ts"
import * as AdminRoutes from "./AdminRoutes.ts"
import type { ConfigFile } from "./ConfigFile.ts"
import type { KeyStore } from "./KeyStore.ts"
import { Pipeline } from "./Pipeline.ts"
import * as ReferencePage from "./ReferencePage.ts"
import * as SecretSource from "./SecretSource.ts"

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

/** Serves it where there is a token. */
export const layer = (
  file: ConfigFile
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
      return Layer.fresh(
        HttpRouter.serve(Layer.merge(AdminRoutes.layer({ token, status }), ReferencePage.layer(true)), {
          disableLogger: true,
          disableListenLog: true
        })
      ).pipe(
        Layer.provide(
          NodeHttpServer.layerServer(() => createServer({ requestTimeout: 30_000 }), {
            host,
            port,
            gracefulShutdownTimeout: "1 second"
          })
        )
      )
    })
  )
