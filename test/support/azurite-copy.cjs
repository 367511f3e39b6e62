/**
 * Loaded before Azurite. Its copies of a page blob share one list of ranges with their source (3.35, `startCopyFromURL` of
 * LokiBlobMetadataStore), so that writing to the copy changes the source. In Azure they are two blobs; this makes them two.
 */
const fs = require('node:fs');
const path = require('node:path');

const main = fs.realpathSync(process.argv[1]);
const { default: Store } = require(path.join(path.dirname(main), 'persistence/LokiBlobMetadataStore.js'));
const copy = Store.prototype.startCopyFromURL;

Store.prototype.startCopyFromURL = async function own(context, source, destination, ...rest) {
  const told = await copy.call(this, context, source, destination, ...rest);
  const blobs = this.db.getCollection(this.BLOBS_COLLECTION);
  const made = blobs.findOne({
    accountName: destination.account,
    containerName: destination.container,
    name: destination.blob,
    snapshot: '',
  });
  if (made?.pageRangesInOrder !== undefined) {
    made.pageRangesInOrder = structuredClone(made.pageRangesInOrder);
    blobs.update(made);
  }
  return told;
};
