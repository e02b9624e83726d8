export interface PackRequest {
  /** Its digest; the image is named by it. */
  readonly image: string;
  /** Finished source: files, with dependencies installed; or a folder with a Dockerfile. */
  readonly folder: string;
  readonly onText: (text: string) => void;
  readonly signal: AbortSignal;
}

/** Makes container images of finished folders. */
export interface ImagePacker {
  /** Names of the images the engine has, by digest. */
  known(): Promise<ReadonlySet<string>>;
  referenceOf(image: string): string;
  pack(request: PackRequest): Promise<void>;
  remove(image: string): Promise<void>;
}

export const DOCKERFILE = "Dockerfile";
/** Where the files of a built image are, inside. */
export const APP_FOLDER = "/app";
