/**
 * The rights Gilliam's control needs in Consul, as a policy in HCL; the smallest that its tests pass with.
 */
export function consulPolicy({ prefix }: { readonly prefix: string }): string {
  return `# Gilliam's control. Make a policy of it: consul acl policy create -name gilliam -rules @gilliam.hcl
# State, registrations and locks.
key_prefix "${prefix}/" {
  policy = "write"
}

# A session ends what a dead control or host has registered. It is bound to the agent that was asked.
session_prefix "" {
  policy = "write"
}

# Hosts are shown as nodes, instances as services of theirs. A service's name ends with its formation, which no rule of
# Consul's can say, so this names all services; nodes are only Gilliam's own.
node_prefix "${prefix}-" {
  policy = "write"
}
service_prefix "" {
  policy = "write"
}
`;
}
