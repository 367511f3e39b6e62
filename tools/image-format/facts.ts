/** What a header parser finds. */
export interface HeaderFacts {
  /** Size of the disk the guest sees, a multiple of 512. */
  virtualBytes: number;
}
