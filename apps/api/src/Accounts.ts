/**
 * Where the gateway keeps its accounts: the ledger of every call, and the budgets. They outlive a change of the
 * configuration.
 */
import * as path from "node:path"
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type { PlatformError } from "effect/PlatformError"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import {
  type InvalidSetting,
  Budget,
  Cost,
  LedgerRetention,
  Observer,
  PriceCatalogue,
  Telemetry,
  UsageLedger
} from "@llm/core"
import * as BudgetSql from "@llm/core/BudgetSql"
import * as LedgerJournal from "@llm/core/LedgerJournal"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import * as Access from "./Access.ts"
import type { ConfigFile } from "./ConfigFile.ts"
import * as KeyStore from "./KeyStore.ts"
import * as Policies from "./Policies.ts"
import * as SecretSource from "./SecretSource.ts"
import * as TelemetryExport from "./TelemetryExport.ts"

/** The simulator plays OpenAI, also in what it costs. */
const played = PriceCatalogue.layerWith({ providers: { simulator: { as: "openai" } } })

const prices = ({ prices: settings }: ConfigFile) =>
  settings === undefined
    ? played
    : Layer.unwrap(
        Effect.flatMap(FileSystem.FileSystem, (files) =>
          Effect.map(files.readFileString(settings.file), (text) =>
            PriceCatalogue.layerText(text, settings.file)
          )
        )
      )

/** Dollars of a usage, for the metrics; the ledger counts exactly. */
const metrics = Layer.unwrap(
  Effect.map(Effect.service(PriceCatalogue.PriceCatalogue), (catalogue) =>
    Telemetry.layerMetrics({
      cost: ({ model, operation, provider }, usage, at) => {
        const price = catalogue.priceOf(model, provider, at, { tier: usage.serviceTier })
        if (price._tag === "Failure") return undefined
        const cost = Cost.make(usage, price.success, operation)
        return cost._tag === "Failure" ? undefined : Cost.toDollars(cost.success.total)
      }
    })
  )
)

/** The folder for what is kept in files, made where there is none. */
const inFolder = (folder: string, name: string) =>
  Effect.flatMap(FileSystem.FileSystem, (files) =>
    Effect.as(files.makeDirectory(folder, { recursive: true }), path.join(folder, name))
  )

const sqlite = (filename: Effect.Effect<string, PlatformError, FileSystem.FileSystem>) =>
  Layer.unwrap(Effect.map(filename, (name) => SqliteClient.layer({ filename: name, checkpoints: "thread" })))

const client = (
  { database }: ConfigFile,
  folder: string
): Layer.Layer<
  SqlClient,
  InvalidSetting.InvalidSetting | PlatformError | SqlError | SecretSource.SecretMissing,
  FileSystem.FileSystem
> => {
  if (database === undefined) return sqlite(inFolder(folder, "llm.db"))
  if ("sqlite" in database)
    return sqlite(inFolder(path.dirname(database.sqlite), path.basename(database.sqlite)))
  const { postgres } = database
  return Layer.unwrap(
    Effect.map(SecretSource.read("database.postgres", postgres), (url) =>
      PgClient.layer({ url, applicationName: "llm-gateway" })
    )
  )
}

const budgets = (file: ConfigFile) =>
  Layer.unwrap(
    Effect.map(Effect.service(Access.Access), ({ policies }) => {
      const settings = Policies.budgetSettings(file, policies)
      return settings === undefined
        ? Budget.layerNone
        : BudgetSql.layer({ ...settings, unavailable: file.unavailable })
    })
  )

/**
 * Ledger, keys, budgets, prices and metrics.
 *
 * @param folder for the database and the journal, where the file does not name others
 */
export const layer = (file: ConfigFile, folder: string) => {
  const journal = Layer.unwrap(
    Effect.map(inFolder(file.journal ?? folder, "journal"), (directory) => LedgerJournal.layer({ directory }))
  )
  const retention = file.ledger === undefined ? Layer.empty : LedgerRetention.layer(file.ledger)
  const ledger = UsageLedger.layerObserver.pipe(
    Layer.provideMerge(UsageLedger.layer()),
    Layer.merge(retention),
    Layer.provide([SqlLedgerStore.layer, journal])
  )
  const watched = Layer.unwrap(
    Effect.map(TelemetryExport.observers(file), (exported) =>
      Observer.layerAll([metrics, ...exported, ...(file.telemetry?.log === true ? [Telemetry.layerLog] : [])])
    )
  )
  return Layer.merge(budgets(file), watched).pipe(
    Layer.provideMerge(ledger),
    Layer.provideMerge(Access.layer({ required: file.keys?.required })),
    Layer.provideMerge(KeyStore.layer({ grace: file.keys?.grace })),
    Layer.provideMerge(prices(file)),
    Layer.provideMerge(client(file, folder))
  )
}
