const PASSED_ON = [
  /^(HTTPS?|NO|ALL)_PROXY$/i,
  /^NODE_EXTRA_CA_CERTS$/,
  /^SSL_CERT_(FILE|DIR)$/,
  /^(REQUESTS|CURL)_CA_BUNDLE$/,
  /^GIT_SSL_CAINFO$/,
  /^PIP_/,
  /^NPM_CONFIG_(?!.*(CACHE|PREFIX|USERCONFIG|GLOBALCONFIG|USER_AGENT))/i,
  /^(YARN|PNPM|CARGO_REGISTRIES|GOPROXY|GONOSUMDB|GOFLAGS)/,
];

/**
 * What of the executor's own environment a build needs to reach package registries, and nothing else: proxies,
 * certificate authorities, registries. It is given to build steps only, never to instances.
 */
export function buildEnvironment(environment: NodeJS.ProcessEnv): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const [name, value] of Object.entries(environment)) {
    if (value !== undefined && PASSED_ON.some((pattern) => pattern.test(name))) passed[name] = value;
  }
  return passed;
}
