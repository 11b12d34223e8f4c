/**
 * Who answers: the deployments of the configuration, OpenAI as the environment says, or a simulator of our own.
 */
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { Resilience, Settings } from "@llm/core"
import { OpenAi, type OpenAiClient } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import type { ConfigFile, Deployment } from "./ConfigFile.ts"
import * as SecretSource from "./SecretSource.ts"

/** A deployment with its key; the simulator takes any. */
const optionsOf = Effect.fnUntraced(function* (
  { apiKey, baseUrl, name, organization, project, provider = "openai" }: Deployment,
  simulator: string | undefined
) {
  const key =
    apiKey === undefined
      ? Redacted.make("none")
      : yield* SecretSource.read(`deployments.${name}.apiKey`, apiKey)
  const deployment: OpenAiClient.Deployment = {
    deployment: name,
    provider,
    apiKey: key,
    baseUrl: baseUrl ?? (provider === "simulator" ? simulator : undefined),
    organization,
    project
  }
  return deployment
})

const isSimulated = ({ baseUrl, provider }: Deployment): boolean =>
  provider === "simulator" && baseUrl === undefined

const deployments = (
  [first, ...rest]: NonNullable<ConfigFile["deployments"]>,
  simulator: string | undefined
): Layer.Layer<OpenAi.OpenAi, SecretSource.SecretMissing, Resilience.Resilience | FileSystem.FileSystem> =>
  Layer.unwrap(
    Effect.gen(function* () {
      return OpenAi.layerDeployments([
        yield* optionsOf(first, simulator),
        ...(yield* Effect.forEach(rest, (deployment) => optionsOf(deployment, simulator)))
      ])
    })
  )

const simulated = Layer.unwrap(
  Effect.map(Simulator.Simulator, (simulator) =>
    OpenAi.layer({ apiKey: Redacted.make("simulator"), baseUrl: simulator.url, provider: "simulator" })
  )
)

/** The operations over whoever answers. */
export const layer = (
  { provider }: Settings.Upstream,
  file: ConfigFile = {}
): Layer.Layer<
  OpenAi.OpenAi,
  Config.ConfigError | Simulator.SimulatorError | SecretSource.SecretMissing,
  Resilience.Resilience | FileSystem.FileSystem
> => {
  const listed = file.deployments
  if (listed === undefined)
    return provider === "openai" ? OpenAi.layerConfig : Layer.provide(simulated, Simulator.layer())
  if (!listed.some(isSimulated)) return deployments(listed, undefined)
  return Layer.unwrap(
    Effect.map(Simulator.Simulator, (simulator) => deployments(listed, simulator.url))
  ).pipe(Layer.provide(Simulator.layer()))
}
