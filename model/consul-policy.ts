/**
 * The rights Gilliam's control needs in Consul, as a policy in HCL; the smallest that its tests pass with.
 * Names of services are those of the formations, so they cannot be narrowed down by a prefix.
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
`;
}
